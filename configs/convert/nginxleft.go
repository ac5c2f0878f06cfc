package convert

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// duration carries a time over; of several servers the longest counts.
func (n *nginx) duration(d *directive, section map[string]string, key string) {
	v, ok := nginxTime(d.arg(0))
	if !ok {
		n.left(d.place, d.String(), "is no time")
		return
	}
	if before, err := time.ParseDuration(section[key]); err == nil && before != v {
		n.left(d.place, d.String(), "popgate has one timeouts."+key+" for all listeners: the longest was taken")
		v = max(v, before)
	}
	section[key] = short(v)
}

var nginxTimes = regexp.MustCompile(`([0-9]+) *(ms|s|m|h|d|w|M|y|)`)

// nginxTime reads a time as nginx writes it: "60", "90s", "1h 30m", "500ms".
func nginxTime(s string) (time.Duration, bool) {
	units := map[string]time.Duration{
		"": time.Second, "ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
		"w": 7 * 24 * time.Hour, "M": 30 * 24 * time.Hour, "y": 365 * 24 * time.Hour,
	}
	parts := nginxTimes.FindAllStringSubmatch(s, -1)
	if len(parts) == 0 || strings.TrimSpace(nginxTimes.ReplaceAllString(s, "")) != "" {
		return 0, false
	}
	var sum time.Duration
	for _, p := range parts {
		v, err := strconv.ParseInt(p[1], 10, 32)
		if err != nil {
			return 0, false
		}
		sum += time.Duration(v) * units[p[2]]
	}
	return sum, sum < 100*365*24*time.Hour
}

// carried are the lines that server looks at, and those that say what popgate does anyway.
var carried = map[string]bool{
	"listen": true, "protocol": true, "server_name": true, "ssl": true, "starttls": true, "ssl_certificate": true,
	"ssl_certificate_key": true, "ssl_client_certificate": true, "ssl_verify_client": true, "ssl_protocols": true,
	"timeout": true, "proxy_timeout": true, "max_errors": true, "auth_http": true, "auth_http_header": true,
	"auth_http_timeout": true, "proxy_protocol": true, "set_real_ip_from": true, "proxy": true, "proxy_buffer": true,
	"error_log": true, "ssl_prefer_server_ciphers": true, "ssl_session_cache": true, "ssl_session_tickets": true,
	"ssl_session_timeout": true, "ssl_dhparam": true, "tcp_nodelay": true, "so_keepalive": true,
}

// reasons are why other lines are not carried over, by name or by how it begins.
var reasons = []struct{ prefix, why string }{
	{"pop3_auth", "popgate takes USER and PASS, AUTH PLAIN and AUTH LOGIN; APOP and CRAM-MD5 need the password itself at the proxy"},
	{"pop3_capabilities", "popgate asks the backends what they can do"},
	{"imap_", "popgate speaks POP3 only"},
	{"smtp_", "popgate speaks POP3 only"},
	{"xclient", "is about SMTP"},
	{"proxy_smtp_auth", "is about SMTP"},
	{"proxy_pass_error_message", "clients hear popgate's own words: a backend's would tell strangers too much"},
	{"auth_http_pass_client_cert", "the certificate's subject is sent, the certificate itself is not"},
	{"resolver", "popgate takes the system's resolver"},
	{"ssl_ciphers", "popgate has the ciphers that are safe, and no choice"},
	{"ssl_ecdh_curve", "popgate has the groups that are safe, X25519MLKEM768 among them"},
	{"ssl_session_ticket_key", "popgate makes and rotates its own; nodes share them through a storage"},
	{"ssl_password_file", "take the password off the key"},
	{"ssl_crl", "popgate looks at no revocation lists of client certificates"},
	{"ssl_trusted_certificate", "belongs to tls.client_ca.file"},
	{"ssl_verify_depth", "popgate takes chains of any length that end at a CA of tls.client_ca.file"},
	{"ssl_conf_command", "popgate does not use OpenSSL"},
}

// explain notes a line that is not carried over.
func (n *nginx) explain(d *directive) {
	if carried[d.name] {
		return
	}
	for _, r := range reasons {
		if strings.HasPrefix(d.name, r.prefix) {
			n.left(d.place, d.String(), r.why)
			return
		}
	}
	n.left(d.place, d.String(), "popgate knows no such thing")
}

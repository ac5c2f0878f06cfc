package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"
)

const pebbleModule = "github.com/letsencrypt/pebble/v2"

// buildPebble builds the Pebble that the tools' module pins, once: Debian's is too old to know ARI and profiles.
var buildPebble = sync.OnceValues(func() (string, error) {
	version, err := goCommand("list", "-modfile=../../.ci/tools/go.mod", "-m", "-f", "{{.Version}}", pebbleModule)
	if err != nil {
		return "", err
	}
	cache, err := goCommand("env", "GOCACHE")
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(cache), "popgate-tools", "pebble-"+version)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	// Other packages' tests may be building it too: each makes its own, and the last one stays.
	built := fmt.Sprintf("%s.%d", path, os.Getpid())
	if _, err := goCommand("build", "-modfile=../../.ci/tools/go.mod", "-o", built, pebbleModule+"/cmd/pebble"); err != nil {
		return "", err
	}
	return path, os.Rename(built, path)
})

func goCommand(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// cmdPebble starts Pebble, an ACME issuer for tests, and a DNS server that says of every name that it is this machine. It sets
//
//	$ACME       the URL of its directory; its own certificate is of tls/ca.pem
//	$ACME_HTTP  the port where it looks for HTTP-01
//	$ACME_ALPN  the port where it looks for TLS-ALPN-01
//	$ACME_DNS   the DNS server
//
// and writes the root of what it issues into issued.pem. Its certificates are good for LIFE, or 90 days.
func cmdPebble(ts *testscript.TestScript, neg bool, args []string) {
	life := 90 * 24 * time.Hour
	if len(args) == 1 {
		var err error
		life, err = time.ParseDuration(args[0])
		ts.Check(err)
	}
	if neg || len(args) > 1 {
		ts.Fatalf("usage: pebble [LIFE]")
	}
	path, err := buildPebble()
	if err != nil {
		skipOrFail(ts, fmt.Sprintf("Pebble cannot be built: %v", err))
	}
	s := stageOf(ts)
	address, err := startDNS(s)
	ts.Check(err)
	var ports [4]int
	for i := range ports {
		ports[i], err = freePort()
		ts.Check(err)
	}
	listen, manage := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": manage, "httpPort": ports[2], "tlsPort": ports[3],
		"certificate": ts.MkAbs("tls/cert.pem"), "privateKey": ts.MkAbs("tls/key.pem"),
		"keyAlgorithm": "ecdsa",
		"retryAfter":   map[string]int{"authz": 1, "order": 1},
		"profiles":     map[string]any{"default": map[string]any{"description": life.String(), "validityPeriod": int(life / time.Second)}},
	}})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("pebble.json"), config, 0o600))
	cmd := exec.Command(path, "-config", ts.MkAbs("pebble.json"), "-dnsserver", address)
	cmd.Env = []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0"}
	p, err := launch(cmd, ts.MkAbs("pebble.log"))
	ts.Check(err)
	s.programs["pebble"] = p
	eventually(ts, "Pebble's root", func() (bool, error) {
		root, err := rootOf(manage, ts.MkAbs("tls/ca.pem"))
		if err != nil {
			return false, err
		}
		return true, os.WriteFile(ts.MkAbs("issued.pem"), root, 0o600)
	})
	ts.Setenv("ACME", "https://"+listen+"/dir")
	ts.Setenv("ACME_HTTP", strconv.Itoa(ports[2]))
	ts.Setenv("ACME_ALPN", strconv.Itoa(ports[3]))
	ts.Setenv("ACME_DNS", address)
}

// rootOf asks Pebble for the root certificate of this run.
func rootOf(manage, caFile string) ([]byte, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots},
	}}
	resp, err := client.Get("https://" + manage + "/roots/0")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// startDNS starts a DNS server for which every name is this machine, and every zone's authority itself. Pebble asks it over TCP,
// others over UDP.
func startDNS(s *stage) (address string, err error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	address = fmt.Sprintf("127.0.0.1:%d", port)
	for _, network := range []string{"udp", "tcp"} {
		up, failed := make(chan struct{}), make(chan error, 1)
		srv := &dns.Server{Addr: address, Net: network, Handler: dns.HandlerFunc(answerDNS), NotifyStartedFunc: func() { close(up) }}
		go func() { failed <- srv.ListenAndServe() }()
		select {
		case <-up:
			s.servers = append(s.servers, srv.Shutdown)
		case err := <-failed:
			return "", err
		}
	}
	return address, nil
}

func answerDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative = true
	for _, question := range q.Question {
		text := map[uint16]string{
			dns.TypeA:   "A 127.0.0.1",
			dns.TypeSOA: "SOA ns.example.org. hostmaster.example.org. 1 3600 600 86400 60",
		}[question.Qtype]
		if text == "" {
			continue // the name is there, and has no such record
		}
		if rr, err := dns.NewRR(question.Name + " 60 IN " + text); err == nil {
			m.Answer = append(m.Answer, rr)
		}
	}
	_ = w.WriteMsg(m) // who asked asks again
}

// cmdSerial sets VAR to the serial number of the certificate that a client which asks for SERVERNAME is shown at HOST:PORT, once it
// is shown one, and one with another serial number than OTHER.
func cmdSerial(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: serial VAR HOST:PORT SERVERNAME [OTHER]")
	}
	eventually(ts, "a certificate for "+args[2], func() (bool, error) {
		serial, err := serialAt(args[1], args[2])
		if err != nil || len(args) == 4 && serial == args[3] {
			return false, err
		}
		ts.Setenv(args[0], serial)
		return true, nil
	})
}

func serialAt(address, serverName string) (string, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	// Whoever issued it: that is for the clients of the script to find out.
	conn, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{ServerName: serverName, InsecureSkipVerify: true})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Text(16), nil
}

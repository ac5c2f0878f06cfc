package backend

import (
	"net/netip"
	"time"

	"github.com/popgate/popgate/proxy/pop3"
)

// How a server answered something.
const (
	answerTaken   = "taken"
	answerRefused = "refused"
	answerSilent  = "silent"
	answerClosed  = "closed"
	answerGarbage = "garbage"
	answerCommand = "command" // a PROXY header was taken for a command
)

// answered says that answer leaves the connection usable.
func answered(answer string) bool { return answer == answerTaken || answer == answerRefused }

// Facts are what was seen of a server. Answers are taken, refused, silent, closed or garbage (no POP3), "" where it was
// not asked; that to a PROXY header may be command: it was taken for one.
type Facts struct {
	// Error is why nothing more was found out.
	Error        string          `json:"error,omitempty"`
	Connection   ConnectionFacts `json:"connection"`
	Greeting     GreetingFacts   `json:"greeting"`
	Capabilities CapabilityFacts `json:"capabilities"`
	SASL         SASLFacts       `json:"sasl"`
	// Pipelining is the answer to two commands in one write.
	Pipelining string         `json:"pipelining,omitempty"`
	Plaintext  PlaintextFacts `json:"plaintext"`
	XClient    XClientFacts   `json:"xclient"`
	Proxy      ProxyFacts     `json:"proxy"`
	TLS        TLSFacts       `json:"tls"`
	Login      *LoginFacts    `json:"login,omitempty"`
	Wrong      *WrongFacts    `json:"wrong_password,omitempty"`
}

// ConnectionFacts are about the way to the server.
type ConnectionFacts struct {
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Took      float64      `json:"took_ms"`
	// SameHost says that the server was reached without leaving this machine: it may treat others otherwise.
	SameHost bool `json:"same_host,omitempty"`
}

// GreetingFacts are about the greeting.
type GreetingFacts struct {
	Text string  `json:"text,omitempty"` // "" where there was none
	Took float64 `json:"took_ms"`
	// APOP says that it has a timestamp for APOP.
	APOP bool `json:"apop"`
}

// CapabilityFacts are what the server says it can do.
type CapabilityFacts struct {
	Answer string            `json:"answer,omitempty"`
	List   pop3.Capabilities `json:"list,omitempty"`
	// BehindSTLS is the list over TLS where that began by STLS.
	BehindSTLS pop3.Capabilities `json:"behind_stls,omitempty"`
}

// SASLFacts are the answer to AUTH alone, by which clients asked for mechanisms before CAPA said them.
type SASLFacts struct {
	Answer     string   `json:"answer,omitempty"`
	Mechanisms []string `json:"mechanisms,omitempty"`
}

// PlaintextFacts are the answer to USER without TLS, and its words.
type PlaintextFacts struct {
	Answer string `json:"answer,omitempty"`
	Text   string `json:"text,omitempty"`
}

// XClientFacts say whether the greeting offers XCLIENT, and what came of it.
type XClientFacts struct {
	Offered bool   `json:"offered"`
	Answer  string `json:"answer,omitempty"`
}

// ProxyFacts are what came to a connection without a PROXY header, and with one.
type ProxyFacts struct {
	// Needed is the header that the server had to be given before it greeted: proxy_v1, proxy_v2, or "" for none.
	Needed  string `json:"needed,omitempty"`
	Without string `json:"without,omitempty"`
	V1      string `json:"v1,omitempty"`
	V2      string `json:"v2,omitempty"`
}

// TLSFacts are about TLS from the first octet on, by STLS, and at port 995.
type TLSFacts struct {
	// FromStart says that the server had to be spoken to by TLS from the first octet on.
	FromStart bool   `json:"from_the_start"`
	STLS      string `json:"stls,omitempty"`
	STLSText  string `json:"stls_text,omitempty"`
	// Injected says that what was sent behind STLS in clear was taken as if it had come over TLS.
	Injected bool `json:"takes_octets_behind_stls"`
	// Port995 says that the host speaks TLS at port 995; asked where the server's own port is 110.
	Port995 bool `json:"at_port_995"`
	// Version and Cipher are those of the handshake, "" where there was none.
	Version     string            `json:"version,omitempty"`
	Cipher      string            `json:"cipher,omitempty"`
	Certificate *CertificateFacts `json:"certificate,omitempty"`
	version     uint16
}

// CertificateFacts are about the certificate that a server showed, and its key.
type CertificateFacts struct {
	// Names are those that it is for.
	Names    []string  `json:"names"`
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"not_after"`
	// Chain is the number of certificates that the server sent.
	Chain      int  `json:"chain"`
	SelfSigned bool `json:"self_signed"`
	// KeySHA256 is what tls_pin_sha256 would have for the server's key.
	KeySHA256 string `json:"key_sha256"`
	// Problem is why it would not be trusted as the backend is configured, "" where it would.
	Problem string `json:"problem,omitempty"`
	// ServerName is a name that would make it trusted, "" for none.
	ServerName string `json:"server_name,omitempty"`
}

// LoginFacts are what a login in the way that is configured brought about.
type LoginFacts struct {
	Error        string            `json:"error,omitempty"`
	Took         float64           `json:"took_ms"`
	STAT         string            `json:"stat,omitempty"`
	UIDL         string            `json:"uidl,omitempty"`
	TOP          string            `json:"top,omitempty"`
	Messages     int               `json:"messages"`
	Capabilities pop3.Capabilities `json:"capabilities,omitempty"`
}

// WrongFacts are what a wrong password brought about.
type WrongFacts struct {
	// Asked says that the login came to the password.
	Asked bool    `json:"asked"`
	Text  string  `json:"text"`
	Took  float64 `json:"took_ms"`
	// Accepted says that the server let it in. Kind is what popgate makes of a refusal.
	Accepted bool   `json:"accepted"`
	Kind     string `json:"kind,omitempty"`
}

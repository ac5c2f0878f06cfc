package wforce

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Service decides for those who ask popgate. Any goroutine may call it at once. The times are the asker's: Dovecot waits
// 2 seconds. An error is told to nobody but the log; the asker does then what it is set to do on a failure.
type Service interface {
	// Allow says whether a login may go on: below 0 refuses it, 0 lets it, above 0 are the seconds it is to wait before.
	Allow(ctx context.Context, q *Question) (int, error)
	// Report takes what became of a login.
	Report(ctx context.Context, q *Question, o Outcome) error
	// Reset forgets what is held against an address, a user, or a user from an address: what is not set is not asked for.
	Reset(ctx context.Context, addr netip.Addr, login string) error
}

// A Question is the login that a server asks about. It is valid for the call.
type Question struct {
	// Login is the user name as the client typed it, any text of at most 512 bytes; "" where the asker takes it for none, and
	// reports the attempt all the same.
	Login string
	// Addr is the client's address; IPv4 is never mapped into IPv6.
	Addr netip.Addr
	// PasswordHash is what two logins with one password have in common: a few digits, the same for the same user and nonce.
	PasswordHash string
	// Protocol is what the client speaks, such as pop3 or imap; "" where the asker does not say.
	Protocol string
	// Session is the asker's session, "" where it does not say.
	Session string
	// TLS says that the client speaks TLS.
	TLS bool
}

// ServerConfig says who may ask popgate. With an address, at least one of its secrets must be there.
type ServerConfig struct {
	// The address to answer on, without TLS: "host:port" with an IP address, such as "127.0.0.1:8084". Empty answers nobody.
	Address string `yaml:"address"`
	// A file with the password that a server must send by HTTP Basic, whatever the user's name is: in Dovecot
	// `auth_policy_server_url = http://wforce:PASSWORD@127.0.0.1:8084/`.
	PasswordFile string `yaml:"password_file"`
	// A file with the key that a server may send in the header `api_key_header` in place of the password: in Dovecot
	// `auth_policy_server_api_header = KEY`.
	APIKeyFile string `yaml:"api_key_file"`
	// The header that the key of `api_key_file` comes in.
	APIKeyHeader string `yaml:"api_key_header"`
}

// DefaultServerConfig has Dovecot's header and no secret yet.
func DefaultServerConfig() ServerConfig { return ServerConfig{APIKeyHeader: "X-API-Key"} }

// Validate tells fault of every value that cannot be meant, by its key. It opens no file.
func (c ServerConfig) Validate(fault func(key, problem string)) {
	if c.Address == "" {
		return
	}
	host, _, err := net.SplitHostPort(c.Address)
	if err == nil && host != "" {
		_, err = netip.ParseAddr(host)
	}
	if err != nil {
		fault("address", fmt.Sprintf(`is %q; write "host:port" with an IP address, such as "127.0.0.1:8084"`, c.Address))
	}
	if c.PasswordFile == "" && c.APIKeyFile == "" {
		fault("password_file", "is missing, and so is api_key_file; write one of them, or anybody could ask, and reset lockouts")
	}
	if c.APIKeyFile != "" && !isToken(c.APIKeyHeader) {
		fault("api_key_header", fmt.Sprintf("is %q, which is no name of a header; write one such as X-API-Key", c.APIKeyHeader))
	}
}

// Hint is what an operator should be reminded of, "" where there is nothing.
func (c ServerConfig) Hint() string {
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil || isLocal(host) {
		return ""
	}
	return fmt.Sprintf("weakforced.serve answers on %s without TLS: whoever sees that network sees user names and the password to ask with, and can "+
		"end lockouts by it; keep it to a network of your own", c.Address)
}

const (
	// maxRequest bounds the body of a request. Dovecot's have some 300 bytes.
	maxRequest = 16 << 10
	// maxRequestTime is how long a request's body may take to come.
	maxRequestTime = 5 * time.Second
	// maxServing bounds the requests under way at once.
	maxServing = 256
)

// A Server serves the calls of weakforced: allow, report, reset and ping, in both forms of URL. It is made once and
// outlives reloads; it refuses everybody before the first Use. It serves at once what comes at once, up to a bound.
type Server struct {
	service Service
	log     *slog.Logger
	calls   *prometheus.CounterVec
	view    atomic.Pointer[ServerView]
	places  chan struct{}
	strange complaints // of who asks without a secret
	failed  complaints // of what could not be answered
}

// NewServer makes a Server that asks s. A nil log discards, a nil reg registers no metrics.
func NewServer(s Service, log *slog.Logger, reg prometheus.Registerer) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	srv := &Server{service: s, log: log, places: make(chan struct{}, maxServing)}
	srv.calls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "popgate_wforce_served_total", Help: "Calls by which other servers asked popgate, by command and HTTP status.",
	}, []string{"command", "status"})
	if reg != nil {
		reg.MustRegister(srv.calls)
	}
	return srv
}

// A ServerView is who may ask by one configuration. It holds digests of the secrets, never the secrets.
type ServerView struct {
	header           string
	password, apiKey *[sha256.Size]byte // nil: not by this way
}

// Prepare reads the secrets of c, which has passed Validate.
func (*Server) Prepare(c ServerConfig) (*ServerView, error) {
	v := &ServerView{header: c.APIKeyHeader}
	for _, s := range []struct {
		key, file string
		to        **[sha256.Size]byte
	}{{"password_file", c.PasswordFile, &v.password}, {"api_key_file", c.APIKeyFile, &v.apiKey}} {
		if s.file == "" {
			continue
		}
		text, err := readSecret(s.key, s.file)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256([]byte(text))
		*s.to = &sum
	}
	return v, nil
}

// Use puts v in force.
func (s *Server) Use(v *ServerView) { s.view.Store(v) }

// admits says that r brings a secret. It takes the same time for all wrong ones of one length.
func (v *ServerView) admits(r *http.Request) bool {
	if v == nil {
		return false
	}
	ok := 0
	if _, password, given := r.BasicAuth(); given && v.password != nil {
		sum := sha256.Sum256([]byte(password))
		ok |= subtle.ConstantTimeCompare(sum[:], v.password[:])
	}
	if v.apiKey != nil {
		sum := sha256.Sum256([]byte(r.Header.Get(v.header)))
		ok |= subtle.ConstantTimeCompare(sum[:], v.apiKey[:])
	}
	return ok == 1
}

// A refusal is what a call is not served for, told to the asker as it is.
type refusal struct {
	code   int
	reason string
}

// Error is the reason.
func (r *refusal) Error() string { return r.reason }

func refuse(code int, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	command := commandOf(r)
	answer, err := s.serve(w, r, command)
	code := http.StatusOK
	if err != nil {
		var told *refusal
		if !errors.As(err, &told) {
			s.complain(command, err)
			told = &refusal{http.StatusInternalServerError, "popgate cannot say, its log says why"}
		}
		code = told.code
		answer = map[string]any{"status": "failure", "reason": told.reason}
	}
	s.calls.WithLabelValues(command, fmt.Sprint(code)).Inc()
	text, _ := json.Marshal(answer) // strings and numbers
	w.Header().Set("Content-Type", "application/json")
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="popgate"`)
	}
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n'))
}

// commandOf is the call that r asks for, "unknown" for what is none.
func commandOf(r *http.Request) string {
	name, ok := strings.CutPrefix(r.URL.Path, "/command/")
	if !ok {
		name = r.URL.Query().Get("command")
	}
	switch name {
	case commandAllow, commandReport, commandReset, commandPing:
		return name
	}
	return "unknown"
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, command string) (map[string]any, error) {
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	default:
		return nil, refuse(http.StatusServiceUnavailable, "too many requests are under way")
	}
	if !s.view.Load().admits(r) {
		if s.strange.may() {
			s.log.Warn("somebody asks without the right secret", slog.String("address", r.RemoteAddr))
		}
		return nil, refuse(http.StatusUnauthorized, "the password is wrong, or missing")
	}
	switch {
	case command == "unknown":
		return nil, refuse(http.StatusNotFound, "popgate serves allow, report, reset and ping")
	case command == commandPing && (r.Method == http.MethodGet || r.Method == http.MethodPost):
		return map[string]any{"status": "ok"}, nil
	case r.Method != http.MethodPost:
		return nil, refuse(http.StatusMethodNotAllowed, "%s is called by POST", command)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(maxRequestTime)) // a recorder of tests has none
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", maxRequest)
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "the body did not come whole")
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // else the connection could not be kept
	return s.call(r.Context(), command, body)
}

// call does what an authenticated asker wants.
func (s *Server) call(ctx context.Context, command string, body []byte) (map[string]any, error) {
	fields, err := parseRequest(body)
	if err != nil {
		return nil, err
	}
	if command == commandReset {
		addr, login, err := fields.reset()
		if err == nil {
			err = s.service.Reset(ctx, addr, login)
		}
		return map[string]any{"status": "ok"}, err
	}
	q, err := fields.question()
	if err != nil {
		return nil, err
	}
	if command == commandReport {
		o, err := fields.outcome()
		if err == nil {
			err = s.service.Report(ctx, q, o)
		}
		return map[string]any{"status": "ok"}, err
	}
	status, err := s.service.Allow(ctx, q)
	// No word more: Dovecot shows msg to the client, who is to learn nothing.
	return map[string]any{"status": max(status, -1), "msg": "", "r_attrs": struct{}{}}, err
}

func (s *Server) complain(command string, err error) {
	if s.failed.may() {
		s.log.Error("answer a server that asks", slog.String("command", command), slog.Any("error", err))
	}
}

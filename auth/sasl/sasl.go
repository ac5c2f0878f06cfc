// Package sasl is the server's side of SASL (RFC 4422) as POP3 uses it (RFC 5034): PLAIN (RFC 4616) and LOGIN
// (draft-murchison-sasl-login-00), from base64 on the wire to credentials. It works on bytes that can be wiped.
package sasl

import (
	"bytes"
	"encoding/base64"
	"errors"

	"github.com/popgate/popgate/auth"
)

// What can go wrong in an exchange. The client's line is in none of them.
var (
	// ErrMechanism means that the client asked for a mechanism that popgate does not know.
	ErrMechanism = errors.New("unknown SASL mechanism")
	// ErrCancelled means that the client broke off with "*".
	ErrCancelled = errors.New("SASL exchange cancelled")
	// ErrMalformed means that a response is not what the mechanism asks for: not base64, a field missing or empty, or
	// a control byte in a field.
	ErrMalformed = errors.New("malformed SASL response")
	// ErrAuthzid means that the client wants to act as another user than the one whose password it has.
	ErrAuthzid = errors.New("SASL authorization identity differs from the user")
)

// The prompts of LOGIN in base64, "Username:" and "Password:": the clients that look at them know these.
const (
	promptUser   = "VXNlcm5hbWU6"
	promptSecret = "UGFzc3dvcmQ6"
)

// Mechanisms returns the names of the mechanisms, in the order to offer them.
func Mechanisms() []auth.Mechanism {
	return []auth.Mechanism{auth.Plain, auth.Login}
}

// An Exchange is one AUTH command, from its first argument to the credentials. It holds copies of what the client
// sent, so whoever starts one calls Wipe. One goroutine at a time may use it.
type Exchange struct {
	// AnyAuthzid passes over an authorization identity that differs from the user, which is ErrAuthzid otherwise.
	AnyAuthzid bool

	mechanism auth.Mechanism
	begun     bool
	done      bool
	held      [][]byte // all memory that fields were decoded into
	user      []byte
	secret    []byte
}

// Start begins an exchange with the mechanism that the client named, in any case.
func Start(mechanism []byte) (*Exchange, error) {
	for _, m := range Mechanisms() {
		if bytes.EqualFold(mechanism, []byte(m)) {
			return &Exchange{mechanism: m}, nil
		}
	}
	return nil, ErrMechanism
}

// Next takes the client's next response and says what to ask for then: a challenge, in base64 and to be sent behind
// "+ ", as long as done is false. The first call takes the AUTH command's initial response, which is empty where it has
// none; "=" is an empty one (RFC 5034 section 4). Later calls take one line each, without its line end. The response is not kept.
//
// After an error, or once done, the exchange takes no more; nothing decoded is left after an error.
func (x *Exchange) Next(response []byte) (challenge string, done bool, err error) {
	if x.done {
		return "", false, ErrMalformed
	}
	challenge, err = x.next(response)
	if err != nil {
		x.Wipe()
		return "", false, err
	}
	return challenge, x.done, nil
}

func (x *Exchange) next(response []byte) (string, error) {
	first := !x.begun
	x.begun = true
	switch {
	case first && len(response) == 0:
		if x.mechanism == auth.Login {
			return promptUser, nil
		}
		return "", nil
	case first && string(response) == "=":
		response = nil
	case !first && string(response) == "*":
		return "", ErrCancelled
	}
	message, err := x.decode(response)
	if err != nil {
		return "", err
	}
	if x.mechanism == auth.Plain {
		return "", x.plain(message)
	}
	return x.login(message)
}

// decode is base64 with nothing forgiven: one message must not have two spellings.
func (x *Exchange) decode(response []byte) ([]byte, error) {
	if bytes.IndexByte(response, '\r') >= 0 || bytes.IndexByte(response, '\n') >= 0 {
		return nil, ErrMalformed // encoding/base64 would pass over them
	}
	message := make([]byte, base64.StdEncoding.DecodedLen(len(response)))
	x.held = append(x.held, message)
	n, err := base64.StdEncoding.Strict().Decode(message, response)
	if err != nil {
		return nil, ErrMalformed // its text would tell an octet's place, and so a length
	}
	return message[:n], nil
}

// plain takes "authzid NUL authcid NUL passwd".
func (x *Exchange) plain(message []byte) error {
	fields := bytes.Split(message, []byte{0})
	if len(fields) != 3 || !possible(fields[1]) || !possible(fields[2]) {
		return ErrMalformed
	}
	authzid := fields[0]
	if len(authzid) > 0 && !possible(authzid) {
		return ErrMalformed
	}
	if len(authzid) > 0 && !x.AnyAuthzid && !bytes.Equal(authzid, fields[1]) {
		return ErrAuthzid
	}
	x.user, x.secret, x.done = fields[1], fields[2], true
	return nil
}

// login takes the user name first and the password in the next call.
func (x *Exchange) login(message []byte) (string, error) {
	if !possible(message) {
		return "", ErrMalformed
	}
	if x.user == nil {
		x.user = message
		return promptSecret, nil
	}
	x.secret, x.done = message, true
	return "", nil
}

// possible says that a field has something in it and can be written into a line of POP3 as it is: with a CR or LF in
// it, a password would become a command at the backend.
func possible(field []byte) bool {
	for _, c := range field {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return len(field) > 0
}

// Mechanism is the mechanism of this exchange.
func (x *Exchange) Mechanism() auth.Mechanism { return x.mechanism }

// User is the name that the client presented, nil before Next is done. It is valid until Wipe.
func (x *Exchange) User() []byte {
	if !x.done {
		return nil
	}
	return x.user
}

// Secret is the password that the client presented, nil before Next is done. It is valid until Wipe.
func (x *Exchange) Secret() []byte {
	if !x.done {
		return nil
	}
	return x.secret
}

// Wipe overwrites all that the exchange has decoded and ends it. It may be called more than once.
func (x *Exchange) Wipe() {
	for _, b := range x.held {
		clear(b)
	}
	x.held, x.user, x.secret = nil, nil, nil
	x.begun, x.done = true, true
}

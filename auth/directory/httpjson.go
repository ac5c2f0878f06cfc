package directory

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/popgate/popgate/auth"
)

// A jsonQuestion is what a service of the format json is asked, its password left out.
type jsonQuestion struct {
	User      string         `json:"user"`   // as typed
	Local     string         `json:"local"`  // the part before the domain
	Domain    string         `json:"domain"` // in A-labels and lower case; "" for none
	Client    string         `json:"client"` // the IP address
	Port      uint16         `json:"client_port"`
	Listener  string         `json:"listener"`
	SNI       string         `json:"sni"`
	TLS       string         `json:"tls"` // the version; "" without TLS
	Cipher    string         `json:"cipher"`
	Mechanism auth.Mechanism `json:"mechanism"`
	Attempt   int            `json:"attempt"`
	Session   string         `json:"session"`
}

// lookupJSON asks a service of the format json: 200 is an answer, 404 an unknown user, 403 a wrong password, and everything else
// a service that cannot answer.
func (h *httpSource) lookupJSON(ctx context.Context, q *auth.Query, secret []byte, extra string) (Answer, error) {
	if !utf8.ValidString(q.Name.Typed) || !utf8.ValidString(q.Name.Local) {
		return Answer{}, fmt.Errorf("%w: the name is not UTF-8, which JSON cannot say", auth.ErrUnknownUser)
	}
	request, err := h.jsonRequest(q, secret, extra)
	defer clear(request)
	if err != nil {
		return Answer{}, err
	}
	said, err := h.conns.ask(ctx, request, true)
	if err != nil {
		return Answer{}, err
	}
	switch said.status {
	case http.StatusOK:
		answer, err := jsonAnswer(said.body)
		return answer, asContent(err)
	case http.StatusNotFound:
		return Answer{}, fmt.Errorf("%w: the service answers 404", auth.ErrUnknownUser)
	case http.StatusForbidden:
		return Answer{Wait: seconds(said.header.Get("Retry-After"))}, refused("", nil)
	}
	err = fmt.Errorf("the answer has the status %d; it must be 200, 403 or 404", said.status)
	if said.status == http.StatusBadRequest || said.status == http.StatusUnprocessableEntity {
		err = asContent(err) // it does not like the name, which anybody can type
	}
	return Answer{}, err
}

// jsonRequest writes the question.
func (h *httpSource) jsonRequest(q *auth.Query, secret []byte, extra string) ([]byte, error) {
	question := jsonQuestion{
		User: q.Name.Typed, Local: q.Name.Local, Domain: q.Name.Domain,
		Client: q.Client.Addr.Addr().String(), Port: q.Client.Addr.Port(), Listener: q.Client.Listener, SNI: q.Client.ServerName(),
		Mechanism: q.Mechanism, Attempt: q.Attempt, Session: q.Session,
	}
	if t := q.Client.TLS; t != nil {
		question.TLS, question.Cipher = t.Version, t.Cipher
	}
	text, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	// The password is written apart from the rest, so that all there is of it can be wiped.
	body := make([]byte, 0, len(text)+32+6*len(secret))
	body = append(body, text[:len(text)-1]...)
	if len(secret) > 0 {
		body = appendPassword(append(body, ','), secret)
	}
	body = append(body, '}')
	defer clear(body)
	connection := "close"
	if h.config.KeepAlive {
		connection = "keep-alive"
	}
	head := "POST " + h.target.path + " HTTP/1.1\r\nHost: " + h.target.hostport + "\r\nContent-Type: application/json\r\nAccept: application/json\r\n" +
		"Content-Length: " + strconv.Itoa(len(body)) + "\r\nConnection: " + connection + "\r\n" + extra + "\r\n"
	return append(append(make([]byte, 0, len(head)+len(body)), head...), body...), nil
}

// appendPassword writes the member with the password; one that is not UTF-8, and so cannot be said in JSON, goes in base64.
func appendPassword(b, secret []byte) []byte {
	if !utf8.Valid(secret) {
		b = append(b, `"password_base64":"`...)
		b = base64.StdEncoding.AppendEncode(b, secret)
		return append(b, '"')
	}
	const digits = "0123456789abcdef"
	b = append(b, `"password":"`...)
	for _, c := range secret {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

var errNotJSON = errors.New("the answer is not one JSON object")

// jsonAnswer reads an object whose members are the fields of an answer: texts, and true and false where a field is that;
// allow_nets may be a list. What it does not know, what is there twice and what has control bytes is refused.
func jsonAnswer(text []byte) (Answer, error) {
	if !utf8.Valid(text) {
		return Answer{}, errNotJSON
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return Answer{}, errNotJSON
	}
	var f fields
	verified, checked := false, false
	for d.More() {
		key, err := d.Token()
		name, ok := key.(string)
		if err != nil || !ok {
			return Answer{}, errNotJSON
		}
		value, given, err := jsonValue(d, name)
		switch {
		case err != nil:
			return Answer{}, err
		case !given:
		case name == "verified" && checked:
			return Answer{}, errors.New("verified is there twice")
		case name == "verified":
			checked = true
			verified, err = truth(name, value)
		default:
			err = f.set(name, value)
		}
		if err != nil {
			return Answer{}, err
		}
	}
	if t, err := d.Token(); err != nil || t != json.Delim('}') {
		return Answer{}, errNotJSON
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Answer{}, errNotJSON
	}
	answer, err := f.result()
	answer.Verified = verified
	return answer, err
}

// jsonValue reads one value as text; null is not given.
func jsonValue(d *json.Decoder, name string) (value string, given bool, err error) {
	t, err := d.Token()
	if err != nil {
		return "", false, errNotJSON
	}
	switch v := t.(type) {
	case nil:
		return "", false, nil
	case bool:
		return strconv.FormatBool(v), true, nil
	case json.Number:
		return v.String(), true, nil
	case string:
		if hasControl(v) {
			return "", false, fmt.Errorf("%s has a control byte", clip(name))
		}
		return v, true, nil
	}
	if t != json.Delim('[') || name != "allow_nets" {
		return "", false, fmt.Errorf("%q is neither text nor true or false", clip(name))
	}
	var all []string
	for d.More() {
		one, err := d.Token()
		word, ok := one.(string)
		if err != nil || !ok || hasControl(word) {
			return "", false, errors.New("allow_nets is not a list of networks")
		}
		all = append(all, word)
	}
	if _, err := d.Token(); err != nil {
		return "", false, errNotJSON
	}
	return strings.Join(all, ","), true, nil
}

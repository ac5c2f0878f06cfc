package wforce

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
)

// Bounds of what a request may say, in bytes.
const (
	maxLogin = 512
	maxWord  = 256
)

// fields are those of one request.
type fields map[string]json.RawMessage

// parseRequest reads the body of a request. Fields that nobody here knows may be there.
func parseRequest(body []byte) (fields, error) {
	f := fields{}
	err := eachField(body, func(key string, value json.RawMessage) error {
		if f[key] != nil {
			return errors.New("it has a field twice")
		}
		f[key] = value
		return nil
	})
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the body cannot be read: %s", err)
	}
	return f, nil
}

// text is the field key, "" where it is missing or null.
func (f fields) text(key string, most int) (string, error) {
	value := f[key]
	if value == nil || string(value) == "null" {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil || len(s) > most {
		return "", refuse(http.StatusBadRequest, "%s is no string of at most %d bytes", key, most)
	}
	return s, nil
}

// need is the field key, which must be there, if only as an empty string.
func (f fields) need(key string, most int) (string, error) {
	s, err := f.text(key, most)
	if err == nil && f[key] == nil {
		err = refuse(http.StatusBadRequest, "%s is missing", key)
	}
	return s, err
}

// flag is the field key, false where it is missing.
func (f fields) flag(key string) (bool, error) {
	switch string(f[key]) {
	case "true":
		return true, nil
	case "", "false", "null":
		return false, nil
	}
	return false, refuse(http.StatusBadRequest, "%s is neither true nor false, without quotes", key)
}

// secured is the field tls. Dovecot's later versions write a word there, and no word where there is no TLS.
func (f fields) secured() bool {
	switch string(bytes.ToLower(f["tls"])) {
	case "", "false", "null", `""`, `"no"`, `"false"`:
		return false
	}
	return true
}

func (f fields) addr(key string) (netip.Addr, error) {
	s, err := f.need(key, maxWord)
	if err != nil {
		return netip.Addr{}, err
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, refuse(http.StatusBadRequest, "%s is no IP address", key)
	}
	return addr.Unmap().WithZone(""), nil
}

// question reads the login that allow and report are about.
func (f fields) question() (*Question, error) {
	q := &Question{TLS: f.secured()}
	var err error
	if q.Addr, err = f.addr("remote"); err != nil {
		return nil, err
	}
	for _, w := range []struct {
		key  string
		most int
		need bool
		to   *string
	}{
		{"login", maxLogin, true, &q.Login},
		{"pwhash", maxWord, true, &q.PasswordHash},
		{"protocol", maxWord, false, &q.Protocol},
		{"session_id", maxWord, false, &q.Session},
	} {
		read := f.text
		if w.need {
			read = f.need
		}
		if *w.to, err = read(w.key, w.most); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// outcome reads what a report says.
func (f fields) outcome() (Outcome, error) {
	var o Outcome
	var err error
	if f["success"] == nil {
		return o, refuse(http.StatusBadRequest, "success is missing")
	}
	if o.Success, err = f.flag("success"); err != nil {
		return o, err
	}
	if o.PolicyReject, err = f.flag("policy_reject"); err != nil {
		return o, err
	}
	word, err := f.text("fail_type", maxWord)
	if err != nil {
		return o, err
	}
	switch t := FailType(word); t {
	case FailInternal, FailCredentials, FailAccount, FailExpired, FailDisabled, FailPolicy:
		o.FailType = t
	}
	return o, nil // a word of a later version is one that says nothing yet
}

// reset reads whom to forget about.
func (f fields) reset() (addr netip.Addr, login string, err error) {
	if f["ja3"] != nil {
		return addr, "", refuse(http.StatusBadRequest, "popgate counts nothing by ja3; name ip, login or both")
	}
	if f["ip"] != nil {
		if addr, err = f.addr("ip"); err != nil {
			return addr, "", err
		}
	}
	if login, err = f.text("login", maxLogin); err != nil {
		return addr, "", err
	}
	if !addr.IsValid() && login == "" {
		return addr, "", refuse(http.StatusBadRequest, "ip and login are missing; name one or both")
	}
	return addr, login, nil
}

package wforce

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	// maxAnswer bounds what is read of an answer. Those with many r_attrs have some hundred bytes.
	maxAnswer = 64 << 10
	// maxSaid bounds what is repeated in an error of what a server said.
	maxSaid = 200
)

// parseAllow reads the answer to allow: below 0 refuses, 0 goes on, above 0 are seconds to wait before. It takes nothing
// but one object with exactly one status, which is a whole number.
func parseAllow(text []byte) (int64, error) {
	status, err := statusOf(text)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(status), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("its answer has the status %s, which is no whole number%s", said(status), reasonOf(text))
	}
	return n, nil
}

// parseOK reads the answer to report.
func parseOK(text []byte) error {
	status, err := statusOf(text)
	if err != nil {
		return err
	}
	if string(status) != `"ok"` {
		return fmt.Errorf("its answer has the status %s%s", said(status), reasonOf(text))
	}
	return nil
}

// statusOf finds the one status of an answer.
func statusOf(text []byte) (json.RawMessage, error) {
	var status json.RawMessage
	err := eachField(text, func(key string, value json.RawMessage) error {
		if key != "status" {
			return nil
		}
		if status != nil {
			return errors.New("it has two of status")
		}
		status = value
		return nil
	})
	if err == nil && status == nil {
		err = errors.New("it has no status")
	}
	if err != nil {
		return nil, fmt.Errorf("its answer is none: %w", err)
	}
	return status, nil
}

// eachField gives f the fields of the one object that text is, in their order. Unlike Unmarshal it takes no name in
// another case for the name, and shows what is there twice.
func eachField(text []byte, f func(key string, value json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("it is no JSON object")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return errors.New("it is no JSON")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return errors.New("it is no JSON")
		}
		if err := f(t.(string), value); err != nil { // the decoder takes no other keys
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return errors.New("it is no JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind its object")
	}
	return nil
}

// reasonOf is what an answer says about a failure, for an error's end.
func reasonOf(text []byte) string {
	reason := ""
	_ = eachField(text, func(key string, value json.RawMessage) error {
		if key == "reason" {
			reason = ": " + said(value)
		}
		return nil
	})
	return reason
}

// said quotes what a server said, so that it can be written into a log.
func said(text []byte) string {
	if len(text) > maxSaid {
		text = text[:maxSaid]
	}
	return strconv.QuoteToASCII(string(text))
}

package wforce

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestAnswers: what is no answer counts as a failure, whatever it has in it.
func TestAnswers(t *testing.T) {
	long := `{"status":0,"msg":"` + strings.Repeat("x", 10<<20) + `"}`
	for _, tt := range []struct {
		name string
		code int
		body string
		want error
	}{
		{"yes", 200, `{"status":0}`, nil},
		{"all of it", 202, ` {"status": 0, "msg": "m", "r_attrs": {"status": "-1", "a": ["b"]}} ` + "\n", nil},
		{"no", 200, `{"status":-1,"msg":"blocked"}`, ErrRefused},
		{"less than no", 200, `{"status":-7}`, ErrRefused},
		{"empty", 200, ``, ErrDown},
		{"nothing", 204, ``, ErrDown},
		{"no JSON", 200, `<html>status: 0`, ErrDown},
		{"cut", 200, `{"status":0`, ErrDown},
		{"two objects", 200, `{"status":0}{"status":-1}`, ErrDown},
		{"two of it", 200, `{"status":0,"status":-1}`, ErrDown},
		{"another case", 200, `{"Status":0}`, ErrDown},
		{"text", 200, `{"status":"0"}`, ErrDown},
		{"a fraction", 200, `{"status":0.5}`, ErrDown},
		{"an exponent", 200, `{"status":0e0}`, ErrDown},
		{"null", 200, `{"status":null}`, ErrDown},
		{"too large", 200, `{"status":99999999999999999999}`, ErrDown},
		{"an array", 200, `[{"status":0}]`, ErrDown},
		{"deep", 200, `{"a":` + strings.Repeat("[", 60000), ErrDown},
		{"a failure", 500, `{"status":"failure","reason":"no such thing"}`, ErrDown},
		{"unauthorized", 401, `{"status":0}`, ErrDown},
		{"elsewhere", 302, `{"status":0}`, ErrDown},
		{"ten megabytes", 200, long, ErrDown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/elsewhere" {
					t.Error("it went where it was sent to")
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.code)
				_, _ = io.WriteString(w, tt.body)
			}))
			defer web.Close()
			k := New(nil, nil)
			c := configFor(web.URL)
			err := using(t, k, c).Login(query("anna", "pw")).Allow(t.Context())
			if !errors.Is(err, tt.want) || len(fmt.Sprint(err)) > 500 {
				t.Errorf("refuse: got %v, want %v", err, tt.want)
			}
			c.OnFailure = Allow
			err = using(t, k, c).Login(query("anna", "pw")).Allow(t.Context())
			if want := tt.want; errors.Is(want, ErrDown) && err != nil || !errors.Is(want, ErrDown) && !errors.Is(err, want) {
				t.Errorf("allow: got %v", err)
			}
			if err := k.Trouble(); err != nil {
				t.Errorf("trouble: got %v: a server that answers is not down", err)
			}
		})
	}
}

// FuzzAnswer holds the parser against encoding/json's.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{`{"status":0}`, `{"status":-1,"msg":"x","r_attrs":{}}`, `{"status":"ok"}`, `{"status":1}x`, `{"a":{"status":1}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		status, err := parseAllow(text)
		var want struct {
			Status *json.Number `json:"status"`
		}
		plain := json.Unmarshal(text, &want)
		if err == nil && (plain != nil || want.Status == nil) {
			t.Errorf("%q: got %d, encoding/json says %v", text, status, plain)
		}
		if ok := parseOK(text); ok == nil && err == nil {
			t.Errorf("%q is an answer to both", text)
		}
	})
}

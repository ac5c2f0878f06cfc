package directory

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
)

// TestJSONRequest has a service of net/http's, which would not take what is not HTTP.
func TestJSONRequest(t *testing.T) {
	type seen struct {
		method, path, kind, key string
		body                    map[string]any
	}
	asked := make(chan seen, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := seen{method: r.Method, path: r.URL.String(), kind: r.Header.Get("Content-Type"), key: r.Header.Get("X-Key")}
		text, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(text, &s.body)
		}
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		asked <- s
		_, _ = io.WriteString(w, `{"backend":"new","verified":true}`)
	}))
	defer server.Close()
	for _, keep := range []bool{false, true} {
		for _, secret := range []string{"", "x", testPassword, "\"\\/\u2028\t\x01<>&", "latin-1 \xe4\xff", "\xff"} {
			c := defaultHTTP()
			c.URL, c.Format, c.KeepAlive, c.SendPassword = server.URL+"/users?v=1", formatJSON, keep, secret != ""
			c.Headers = []HTTPHeader{{Name: "X-Key", Value: "k"}}
			o := openHTTP(t, c)
			if (o.Vary&VarySecret != 0) != c.SendPassword {
				t.Errorf("send_password %t: Vary = %b", c.SendPassword, o.Vary)
			}
			q := asks(t, "J\u00f6rg\"x@Example.org", "never sent")
			if secret != "" {
				q.Secret = auth.NewSecret([]byte(secret))
			}
			q.Client.TLS = &auth.TLS{Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", ServerName: "mail.example.org"}
			if got, err := o.Lookup(t.Context(), q); err != nil || got.Backend != "new" || !got.Verified {
				t.Errorf("Lookup = %v, %v", got, err)
			}
			got := <-asked
			want := map[string]any{
				"user": "J\u00f6rg\"x@Example.org", "local": "J\u00f6rg\"x", "domain": "example.org", "client": "192.0.2.7", "client_port": 50123.0,
				"listener": "pop3s", "sni": "mail.example.org", "tls": "TLS 1.3", "cipher": "TLS_AES_128_GCM_SHA256", "mechanism": "PLAIN", "attempt": 1.0, "session": "s1",
			}
			switch {
			case secret == "":
			case strings.Contains(secret, "\xff"):
				want["password_base64"] = base64.StdEncoding.EncodeToString([]byte(secret))
			default:
				want["password"] = secret
			}
			if fmt.Sprint(got.body) != fmt.Sprint(want) || got.method != "POST" || got.path != "/users?v=1" || got.kind != "application/json" || got.key != "k" {
				t.Errorf("asked %+v, want %v", got, want)
			}
		}
	}
}

func TestJSONStatus(t *testing.T) {
	s := newService(t, nil, nil)
	o := openHTTP(t, jsonForm(s))
	for status, want := range map[int]error{404: auth.ErrUnknownUser, 403: auth.ErrWrongPassword, 400: nil, 401: nil, 422: nil, 204: nil, 301: nil, 500: nil, 503: nil} {
		s.will(answering(status, "", "Retry-After: 7"))
		got, err := o.Lookup(t.Context(), asks(t, "alice@example.org", ""))
		if err == nil || errors.Is(err, auth.ErrUnknownUser) != (want == auth.ErrUnknownUser) || errors.Is(err, auth.ErrWrongPassword) != (want == auth.ErrWrongPassword) {
			t.Errorf("%d: %v, want %v", status, err, want)
		}
		if (got.Wait == 7*time.Second) != (status == 403) {
			t.Errorf("%d: wait %s", status, got.Wait)
		}
		if want == nil && !strings.Contains(err.Error(), fmt.Sprint(status)) {
			t.Errorf("%d: %v", status, err)
		}
		if errors.As(err, new(contentError)) != (status == 400 || status == 422) {
			t.Errorf("%d: whose fault is %v", status, err)
		}
	}
}

// A name that JSON cannot say would become another user's.
func TestJSONLatin1(t *testing.T) {
	s := newService(t, nil, answering(200, `{}`))
	_, err := openHTTP(t, jsonForm(s)).Lookup(t.Context(), asks(t, "j\xf6rg@example.org", ""))
	if !errors.Is(err, auth.ErrUnknownUser) || len(s.asked) > 0 {
		t.Errorf("Lookup = %v, and %d questions", err, len(s.asked))
	}
}

func TestJSONAnswer(t *testing.T) {
	for _, tt := range []struct {
		text string
		want string // as the answer prints
		err  string
	}{
		{`{}`, fmt.Sprint(Answer{}), ""},
		{` {"backend":"new","user":"a@b","tenant":"t","master":"m","password":" p w ","hash":"$1$x","disabled":true,"moving":"yes","verified":true} `,
			fmt.Sprint(Answer{Backend: "new", User: "a@b", Tenant: "t", Master: "m", Secret: " p w ", Hash: "$1$x", Disabled: true, Moving: true, Verified: true}), ""},
		{`{"server":"10.0.0.5:110","tls":"none","backend":null}`, fmt.Sprint(Answer{Server: "10.0.0.5:110", TLS: "none"}), ""},
		{`{"host":"::1","port":110}`, fmt.Sprint(Answer{Server: "[::1]:110"}), ""},
		{`{"allow_nets":["192.0.2.0/24","::1"]}`, fmt.Sprint(Answer{}), ""},
		{`{"bakend":"new"}`, "", `"bakend" means nothing`},
		{`{"Backend":"new"}`, "", "means nothing"},
		{`{"backend":"new","backend":"old"}`, "", "twice"},
		{`{"verified":false,"verified":true}`, "", "twice"},
		{`{"verified":"perhaps"}`, "", "verified"},
		{`{"disabled":"perhaps"}`, "", "disabled"},
		{`{"user":"a\r\nDELE 1"}`, "", "control byte"},
		{`{"password":"a\u0000"}`, "", "control byte"},
		{`{"allow_nets":["all"]}`, "", "no network"},
		{`{"allow_nets":[1]}`, "", "not a list of networks"},
		{`{"allow_nets":[["::1"]]}`, "", "not a list of networks"},
		{`{"backend":["new"]}`, "", "neither text"},
		{`{"backend":{"name":"new"}}`, "", "neither text"},
		{`{"backend":"new"`, "", "not one JSON object"},
		{`{"backend":"new"}{}`, "", "not one JSON object"},
		{`{"backend":"new"} x`, "", "not one JSON object"},
		{`[]`, "", "not one JSON object"}, {`"x"`, "", "not one JSON object"}, {``, "", "not one JSON object"}, {`null`, "", "not one JSON object"},
		{"{\"user\":\"\xff\"}", "", "not one JSON object"},
		{`{"password":"` + strings.Repeat("x", maxText+1) + `"}`, "", "more than"},
	} {
		got, err := jsonAnswer([]byte(tt.text))
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%.80q: %v, want %q", tt.text, err, tt.err)
		}
		if err == nil && fmt.Sprint(got) != tt.want {
			t.Errorf("%.80q: %v, want %s", tt.text, got, tt.want)
		}
	}
	got, err := jsonAnswer([]byte(`{"allow_nets":["192.0.2.0/24","::1"],"password":" p w "}`))
	if err != nil || fmt.Sprint(got.AllowNets) != "[192.0.2.0/24 ::1/128]" || got.Secret != " p w " {
		t.Errorf("%v %v, %v", got.AllowNets, got, err)
	}
}

// TestJSONBody holds the size of a body.
func TestJSONBody(t *testing.T) {
	s := newService(t, nil, nil)
	o := openHTTP(t, jsonForm(s))
	for _, tt := range []struct {
		answer func(string) string
		err    string
	}{
		{answering(200, `{"backend":"new"}`+strings.Repeat(" ", maxHTTPBody-20)), ""},
		{answering(200, `{"backend":"new"}`+strings.Repeat(" ", maxHTTPBody)), "longer than"},
		{func(string) string { return "HTTP/1.1 200 OK\r\n\r\n{\"backend\":\"new\"}" }, ""}, // until the end
		{func(string) string {
			return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n{\"backend\":\"new\"}\r\n0\r\n\r\n"
		}, ""},
		{func(string) string {
			return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\n \r\n", 1<<20)
		}, "longer than"},
		{func(string) string { return "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}" }, "read the body"},
	} {
		s.will(tt.answer)
		_, err := o.Lookup(t.Context(), asks(t, "alice@example.org", ""))
		<-s.asked
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%.60q: %v, want %q", tt.answer(""), err, tt.err)
		}
	}
}

func FuzzJSONAnswer(f *testing.F) {
	f.Add([]byte(`{"backend":"new","password":" p\u0020w","disabled":true,"allow_nets":["192.0.2.0/24"],"host":"::1","port":110,"x":null}`))
	f.Add([]byte(`{"verified":true,"verified":true}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := jsonAnswer(text)
		if err != nil {
			return
		}
		var again map[string]any
		if json.Unmarshal(text, &again) != nil {
			t.Fatalf("%q was taken, and is no JSON object", text)
		}
		if a.Verified && again["verified"] == nil {
			t.Fatalf("%q verifies", text)
		}
		for _, s := range []string{a.Backend, a.Server, a.User, a.Secret, a.Master, a.Hash, a.Tenant} {
			if strings.ContainsAny(s, "\r\n\x00") || len(s) > maxText+10 {
				t.Fatalf("%q gives %q", text, s)
			}
		}
	})
}

// FuzzNginxAnswer reads what a service may send as answer, through the whole of the connection.
func FuzzNginxAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 10.0.0.5\r\nAuth-Port: 110\r\nAuth-User: a\r\n\r\n"), true)
	f.Add([]byte("HTTP/1.0 200 OK\nauth-status: WAIT\nAuth-Wait: 1\n\n"), false)
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nAuth-Status: no\r\n\r\n1\r\n \r\n0\r\n\r\n"), true)
	h := &httpSource{config: HTTPConfig{HostNames: true}}
	f.Fuzz(func(t *testing.T, text []byte, body bool) {
		conn := &httpConn{Conn: scripted{}}
		conn.left.R = strings.NewReader(string(text))
		conn.r = bufio.NewReader(&conn.left)
		said, err := conn.exchange(nil, body)
		if err != nil {
			return
		}
		if len(said.body) > maxHTTPBody {
			t.Fatalf("a body of %d bytes", len(said.body))
		}
		a, err := h.nginxAnswer(said.header, []byte("secret"))
		if err != nil && (a.Verified || strings.Contains(err.Error(), "secret")) {
			t.Fatalf("%v, %v", a, err)
		}
		if err == nil && (!a.Verified || a.Server == "" || said.header.Get("Auth-Status") != "OK" || strings.ContainsAny(a.User+a.Secret+a.Server, "\r\n\x00")) {
			t.Fatalf("%q gives %v", text, a)
		}
	})
}

// scripted takes what is written to it.
type scripted struct{ net.Conn }

func (scripted) Write(p []byte) (int, error) { return len(p), nil }

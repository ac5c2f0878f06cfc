package audit

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
)

var update = flag.Bool("update", false, "write docs/audit.md anew where it differs")

const docsPath = "../../docs/audit.md"

// examples are one event each, in the order of the document.
func examples() []*Event {
	at := time.Date(2026, 3, 1, 12, 4, 5, 678901000, time.UTC)
	session := Event{
		Time: at, Session: "kq3v5m2c7d", Listener: "pop3s", Client: netip.MustParseAddrPort("192.0.2.7:51234"),
		TLS: TLSOf(&auth.TLS{
			Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", Group: "X25519MLKEM768", ServerName: "mail.example.org",
		}),
	}
	opened := session
	opened.Name, opened.TLS = SessionOpened, nil
	login := session
	login.Name, login.User, login.Tenant, login.Backend, login.Server, login.Mechanism =
		LoginAccepted, "anna@example.org", "example", "old", "10.0.0.5:110", auth.User
	refused := login
	refused.Name, refused.Reason, refused.Mechanism = LoginRefused, WrongPassword, auth.Plain
	closed := login
	closed.Name, closed.Reason, closed.Mechanism = SessionClosed, ClientQuit, ""
	closed.End = &End{Retr: 3, Dele: 3, Quit: true, BytesIn: 98, BytesOut: 48213, DurationMS: 412}
	issued := Certificate{
		Name: "mail.example.org", Issuer: "acme-v02.api.letsencrypt.org", Serial: "4c9f0a1be7", NotAfter: at.Add(90 * 24 * time.Hour).Truncate(time.Second),
	}
	failed := Certificate{Name: "pop.example.org", Issuer: "acme-v02.api.letsencrypt.org", Problem: "connection refused"}
	network := netip.MustParsePrefix("192.0.2.7/32")
	locked := Lockout{Cause: "user_failures", Failures: 10, Until: at.Add(15 * time.Minute).Truncate(time.Second)}
	return []*Event{
		&login, &refused, &opened, &closed,
		{Name: ConnectionsRefused, Time: at, Reason: TooManySessions, Limit: "per_ip.sessions", Network: netip.MustParsePrefix("2001:db8:0:7::/64"), Count: 4211},
		{Name: ConfigReloaded, Time: at}, {Name: GatewayStarted, Time: at}, {Name: GatewayStopped, Time: at},
		{Name: LockoutStarted, Time: at, Network: network, User: "anna@example.org", Lockout: &locked},
		{Name: LockoutEnded, Time: at, Network: network, User: "anna@example.org", Lockout: &locked},
		{Name: SprayDetected, Time: at, Network: network, Lockout: &Lockout{Cause: "many_users", Users: 20}},
		{Name: CertificateIssued, Time: at, Certificate: &issued}, {Name: CertificateFailed, Time: at, Certificate: &failed},
		{Name: CertificateRevoked, Time: at, Certificate: &issued},
	}
}

// TestDocs holds docs/audit.md against the code: its examples are what popgate writes, its tables what the source says.
// With -update it writes them.
func TestDocs(t *testing.T) {
	want := map[string]string{}
	var order []string
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := New("gw1", nil, nil)
	start(t, l, Config{Path: path, OnFailure: Refuse, SessionOpened: true})
	for _, ev := range examples() {
		before := len(readFile(t, path))
		if err := l.Record(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
		want["example "+string(ev.Name)] = "```json\n" + string(readFile(t, path)[before:]) + "```\n"
		order = append(order, string(ev.Name))
	}
	names := constants(t, "event.go", "Name")
	if got := column(names, 0); strings.Join(got, " ") != strings.Join(order, " ") {
		t.Errorf("examples: got %v, want one of each event: %v", order, got)
	}
	want["events"] = table("event", "what happened", names)
	want["reasons"] = table("reason", "meaning", constants(t, "reason.go", "Reason"))
	want["fields"] = fields(t)

	text := string(readFile(t, docsPath))
	for name, block := range want {
		begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
		head, rest, ok := strings.Cut(text, begin)
		got, tail, ended := strings.Cut(rest, end)
		if !ok || !ended {
			t.Errorf("docs/audit.md: no place %q for what the code says", begin)
			continue
		}
		if got != block && !*update {
			t.Errorf("docs/audit.md, %s: got\n%swant\n%srun go test ./policy/audit -run TestDocs -update", name, got, block)
		}
		text = head + begin + block + end + tail
	}
	if *update {
		if err := os.WriteFile(docsPath, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// constants are the values of a type's constants, and the sentence behind each in its comment.
func constants(t *testing.T, file, typ string) [][2]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var all [][2]string
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || fmt.Sprint(spec.Type) != typ {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		meaning := strings.TrimSpace(spec.Comment.Text())
		if !strings.HasSuffix(meaning, ".") {
			t.Errorf("%s %s: got %q, want its meaning in a sentence behind it", typ, value, meaning)
		}
		for _, other := range all {
			if other[0] == value {
				t.Errorf("%s %s: got it twice", typ, value)
			}
		}
		all = append(all, [2]string{value, meaning})
		return true
	})
	return all
}

func column(rows [][2]string, i int) []string {
	var all []string
	for _, r := range rows {
		all = append(all, r[i])
	}
	return all
}

func table(first, second string, rows [][2]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | %s |\n| --- | --- |\n", first, second)
	for _, r := range rows {
		fmt.Fprintf(&b, "| `%s` | %s |\n", r[0], r[1])
	}
	return b.String()
}

// fields is the table of all fields in the order they are written, from the comments of their structs.
func fields(t *testing.T) string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	structs := map[string]*ast.StructType{}
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok {
			structs[spec.Name.Name], _ = spec.Type.(*ast.StructType)
		}
		return true
	})
	var b strings.Builder
	b.WriteString("| field | type | meaning |\n| --- | --- | --- |\n")
	var walk func(name, prefix string)
	walk = func(name, prefix string) {
		for _, field := range structs[name].Fields.List {
			typ := strings.TrimPrefix(fmt.Sprint(field.Type), "&{")
			if star, ok := field.Type.(*ast.StarExpr); ok {
				typ = fmt.Sprint(star.X)
			}
			if len(field.Names) == 0 {
				walk(typ, prefix)
				continue
			}
			tag, _ := strconv.Unquote(field.Tag.Value)
			key, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
			if key == "-" {
				continue
			}
			meaning := strings.Join(strings.Fields(field.Doc.Text()), " ")
			if meaning == "" {
				t.Errorf("%s.%s: got no comment, want its meaning", name, field.Names[0])
			}
			fmt.Fprintf(&b, "| `%s%s` | %s | %s |\n", prefix, key, jsonType(typ), meaning)
			if typ == "TLS" || typ == "Lockout" || typ == "Certificate" {
				walk(typ, key+".")
			}
		}
	}
	walk("line", "")
	return b.String()
}

func jsonType(goType string) string {
	switch goType {
	case "int", "int64":
		return "number"
	case "bool":
		return "boolean"
	case "TLS", "Lockout", "Certificate":
		return "object"
	}
	return "string"
}

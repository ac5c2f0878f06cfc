package main

import (
	"encoding/csv"
	"encoding/xml"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdFindings holds what a scanner of TLS has found against what is known and means nothing; one finding more, of whatever severity,
// fails the script. So does a known one that is there no more, which should then not be known any longer. With ! there must be findings.
//
//	[!] findings testssl FILE.csv [ID...]
//	[!] findings sslscan FILE.xml [FINDING...]
func cmdFindings(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: [!] findings testssl|sslscan FILE [KNOWN...]")
	}
	text, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	var found []string
	switch args[0] {
	case "testssl":
		found, err = testsslFindings(string(text))
	case "sslscan":
		found, err = sslscanFindings(text)
	default:
		ts.Fatalf("no scanner %s is known", args[0])
	}
	ts.Check(err)
	slices.Sort(found)
	known := slices.Clone(args[2:])
	slices.Sort(known)
	switch {
	case neg && len(found) == 0:
		ts.Fatalf("%s found nothing", args[0])
	case !neg && !slices.Equal(found, known):
		ts.Fatalf("%s found %q, known are %q; see %s", args[0], found, known, args[1])
	}
}

var testsslColumns = []string{"id", "fqdn/ip", "port", "severity", "finding", "cve", "cwe"}

// testsslFindings are the ids of all rows that are not fine. That a scan came to its end, it only says on its standard output.
func testsslFindings(text string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord, r.LazyQuotes = -1, true // texts of the server's go into it as they are
	rows, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) < 2 || !slices.Equal(rows[0], testsslColumns) {
		return nil, fmt.Errorf("testssl: got %q, want the columns %q, and rows", rows, testsslColumns)
	}
	var found []string
	for _, row := range rows[1:] {
		if len(row) < len(testsslColumns) {
			return nil, fmt.Errorf("testssl: row %q has another form than this test knows", row)
		}
		id, severity := row[0], row[3]
		if !slices.Contains([]string{"OK", "INFO", "DEBUG"}, severity) && !slices.Contains(found, id) {
			found = append(found, id)
		}
	}
	return found, nil
}

// sslscanReport is the part of sslscan's XML that can be bad news.
type sslscanReport struct {
	Test struct {
		Protocols []struct {
			Type    string `xml:"type,attr"`
			Version string `xml:"version,attr"`
			Enabled string `xml:"enabled,attr"`
		} `xml:"protocol"`
		Compression struct {
			Supported string `xml:"supported,attr"`
		} `xml:"compression"`
		Heartbleed []struct {
			Vulnerable string `xml:"vulnerable,attr"`
		} `xml:"heartbleed"`
		Renegotiation struct {
			Supported string `xml:"supported,attr"`
			Secure    string `xml:"secure,attr"`
		} `xml:"renegotiation"`
		Ciphers []struct {
			Version  string `xml:"sslversion,attr"`
			Cipher   string `xml:"cipher,attr"`
			Strength string `xml:"strength,attr"`
		} `xml:"cipher"`
		Certificates []struct {
			Signature string `xml:"signature-algorithm"`
			Expired   string `xml:"expired"`
		} `xml:"certificates>certificate"`
	} `xml:"ssltest"`
}

func sslscanFindings(text []byte) ([]string, error) {
	var report sslscanReport
	if err := xml.Unmarshal(text, &report); err != nil {
		return nil, err
	}
	t := report.Test
	if len(t.Ciphers) == 0 || len(t.Certificates) == 0 || len(t.Protocols) < 6 || len(t.Heartbleed) == 0 {
		return nil, fmt.Errorf("sslscan did not come to its end: %s", text)
	}
	var found []string
	add := func(bad bool, finding string) {
		if bad && !slices.Contains(found, finding) {
			found = append(found, finding)
		}
	}
	for _, p := range t.Protocols {
		modern := p.Type == "tls" && (p.Version == "1.2" || p.Version == "1.3")
		add(p.Enabled == "1" && !modern, p.Type+p.Version)
	}
	for _, c := range t.Ciphers {
		add(c.Strength != "strong" && c.Strength != "acceptable", c.Cipher)
	}
	for _, h := range t.Heartbleed {
		add(h.Vulnerable != "0", "heartbleed")
	}
	add(t.Compression.Supported == "1", "compression")
	add(t.Renegotiation.Supported == "1" && t.Renegotiation.Secure != "1", "renegotiation")
	for _, c := range t.Certificates {
		add(c.Expired == "true", "expired")
		add(strings.Contains(strings.ToLower(c.Signature), "sha1"), c.Signature)
	}
	return found, nil
}

func TestTestsslFindings(t *testing.T) {
	const head = `"id","fqdn/ip","port","severity","finding","cve","cwe"` + "\n"
	const fine = `"SSLv3","127.0.0.1/127.0.0.1","995","OK","not offered","",""` + "\n"
	got, err := testsslFindings(head + fine + `"TLS1","127.0.0.1/127.0.0.1","995","LOW","offered (deprecated)","",""` + "\n" +
		`"BEAST","127.0.0.1/127.0.0.1","995","MEDIUM","x","",""` + "\n")
	if !slices.Equal(got, []string{"TLS1", "BEAST"}) || err != nil {
		t.Errorf("got %q, %v, want what is not OK", got, err)
	}
	for _, text := range []string{"", head, fine + fine, head + "\"SSLv3\",\"OK\"\n"} {
		if got, err := testsslFindings(text); err == nil {
			t.Errorf("%q: got %q, want an error", text, got)
		}
	}
}

func TestSslscanFindings(t *testing.T) {
	const protocols = `<protocol type="ssl" version="2" enabled="0" /><protocol type="ssl" version="3" enabled="0" />` +
		`<protocol type="tls" version="1.0" enabled="0" /><protocol type="tls" version="1.1" enabled="1" />` +
		`<protocol type="tls" version="1.2" enabled="1" /><protocol type="tls" version="1.3" enabled="1" />`
	got, err := sslscanFindings([]byte(`<document><ssltest>` + protocols +
		`<renegotiation supported="1" secure="0" /><heartbleed sslversion="TLSv1.2" vulnerable="0" />` +
		`<cipher sslversion="TLSv1.2" cipher="GOOD" strength="strong" /><cipher sslversion="TLSv1.1" cipher="BAD" strength="weak" />` +
		`<certificates><certificate><signature-algorithm>ecdsa-with-SHA256</signature-algorithm><expired>true</expired></certificate></certificates>` +
		`</ssltest></document>`))
	if want := []string{"tls1.1", "BAD", "renegotiation", "expired"}; !slices.Equal(got, want) || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, text := range []string{"", "<document></document>", "<document><ssltest>" + protocols + "</ssltest></document>"} {
		if got, err := sslscanFindings([]byte(text)); err == nil {
			t.Errorf("%q: got %q, want an error, for the scan did not end", text, got)
		}
	}
}

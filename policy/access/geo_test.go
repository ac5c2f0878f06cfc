package access

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// countries makes a database of them.
func countries(t testing.TB, of map[string]string) []byte {
	records := map[string]mmdbtype.Map{}
	for network, code := range of {
		field := mmdbtype.String("country")
		if strings.HasPrefix(code, "registered ") {
			field, code = "registered_country", strings.TrimPrefix(code, "registered ")
		}
		records[network] = mmdbtype.Map{field: mmdbtype.Map{"iso_code": mmdbtype.String(code)}}
	}
	return mmdb(t, "GeoLite2-Country", records)
}

func mmdb(t testing.TB, kind string, records map[string]mmdbtype.Map) []byte {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: kind, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for text, record := range records {
		_, network, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(network, record); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if _, err := tree.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func asns(t testing.TB) []byte {
	return mmdb(t, "GeoLite2-ASN", map[string]mmdbtype.Map{
		"192.0.2.0/24":  {"autonomous_system_number": mmdbtype.Uint32(64500)},
		"2001:db8::/32": {"autonomous_system_number": mmdbtype.Uint32(4200000000)},
	})
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	// As if some time had passed, however coarse the clock of the file system is.
	changes.Lock()
	defer changes.Unlock()
	changes.at = changes.at.Add(time.Second)
	if err := os.Chtimes(path, changes.at, changes.at); err != nil {
		t.Fatal(err)
	}
}

var changes = struct {
	sync.Mutex
	at time.Time
}{at: time.Unix(1_780_000_000, 0)}

func TestGeo(t *testing.T) {
	g, err := parseCountries(bytes.NewReader(countries(t, map[string]string{"192.0.2.0/24": "AT", "2001:db8::/32": "registered DE", "198.51.100.0/24": "x"})))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{"192.0.2.1": "AT", "2001:db8::1": "DE", "198.51.100.1": unknownCountry, "10.0.0.1": unknownCountry, "2002::1": unknownCountry} {
		if got := g.country(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
	a, err := parseASNs(bytes.NewReader(asns(t)))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]uint32{"192.0.2.1": 64500, "2001:db8::1": 4200000000, "10.0.0.1": 0} {
		if got := a.asn(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %d, want %d", addr, got, want)
		}
	}
}

func TestGeoFileOfAnotherKind(t *testing.T) {
	if _, err := parseCountries(bytes.NewReader(asns(t))); err == nil || !strings.Contains(err.Error(), "GeoLite2-ASN") {
		t.Errorf("got error %v, want one that tells the kind", err)
	}
	if _, err := parseASNs(bytes.NewReader(countries(t, map[string]string{"192.0.2.0/24": "AT"}))); err == nil {
		t.Error("a file of countries was taken for one of ASNs")
	}
	if _, err := parseASNs(strings.NewReader("<html>")); err == nil {
		t.Error("a page was taken for a database")
	}
}

// A database is changed, by overwriting even, while many look at it; one that is cut off is not taken.
func TestGeoReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "country.mmdb")
	first, second := countries(t, map[string]string{"192.0.2.0/24": "AT"}), countries(t, map[string]string{"192.0.2.0/24": "DE"})
	write(t, path, first)
	c := DefaultConfig()
	c.Geo.Country = path
	c.Rules = []RuleConfig{{Name: "home", Countries: CountriesRule{Allow: []string{"AT"}}, Action: actionLog}}
	k := New(nil, nil)
	r := prepared(t, k, c)
	k.Use(r)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if v := r.Client(t.Context(), from("192.0.2.1")); v != (Verdict{}) && v != (Verdict{Log, Country, "home", "DE"}) {
						t.Errorf("got %+v", v)
						return
					}
				}
			}
		})
	}
	for i := range 20 {
		write(t, path, [][]byte{second, first}[i%2])
		k.look(true)
		want := [...]string{"DE", "AT"}[i%2]
		if got := r.country.current().country(netip.MustParseAddr("192.0.2.1")); got != want {
			t.Fatalf("got %s after change %d, want %s", got, i, want)
		}
		write(t, path, first[:len(first)/2])
		k.look(true)
		if got := r.country.current().country(netip.MustParseAddr("192.0.2.1")); got != want || k.Trouble() == nil {
			t.Fatalf("got %s and trouble %v after a cut, want %s and some", got, k.Trouble(), want)
		}
	}
	close(stop)
	readers.Wait()
}

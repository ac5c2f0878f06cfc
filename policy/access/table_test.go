package access

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	var b builder
	var none *table
	for _, text := range []string{
		"10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8", "192.0.2.7", "255.255.255.255", "255.255.255.254", "0.0.0.0/32",
		"2001:db8::/32", "2001:db8:1::/48", "2001:db9::1", "::/128", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8:0:0:ffff::/80",
		"fe80::/10", "::ffff:198.51.100.0/120",
	} {
		p, err := network(text)
		if err != nil {
			t.Fatal(err)
		}
		b.prefix(p)
	}
	table := b.table()
	for addr, want := range map[string]bool{
		"10.0.0.0": true, "10.255.255.255": true, "11.255.255.255": true, "12.0.0.0": false, "9.255.255.255": false,
		"192.0.2.7": true, "192.0.2.6": false, "192.0.2.8": false, "255.255.255.255": true, "255.255.255.253": false,
		"0.0.0.0": true, "0.0.0.1": false, "::ffff:10.1.2.3": true, "::ffff:12.1.2.3": false, "198.51.100.200": true,
		"2001:db8::": true, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": true, "2001:db9::": false, "2001:db9::1": true, "2001:db9::2": false,
		"::": true, "::1": false, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": true, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe": false,
		"fe80::1%eth0": true, "fec0::1": false,
	} {
		if got := table.contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("contains %s: got %t, want %t", addr, got, want)
		}
	}
	if got := table.size(); got != 10 {
		t.Errorf("got %d ranges, want 10: those that touch are one", got)
	}
	if table.contains(netip.Addr{}) || none.contains(netip.MustParseAddr("10.0.0.1")) {
		t.Error("no address, or no table, contains something")
	}
}

// The table says what a plain look at each network says, with the index of many ranges too.
func TestTableAgainstPlain(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 3, 70, 600, 2 * manyRanges} {
		var b builder
		var plain []netip.Prefix
		for range n {
			p := randomPrefix(rnd)
			plain = append(plain, p)
			b.prefix(p)
		}
		table := b.table()
		for i := range 2000 {
			addr := plain[i%n].Masked().Addr()
			switch i % 4 {
			case 1:
				addr = addr.Prev()
			case 2:
				addr = lastOf(plain[i%n]).Next()
			case 3:
				addr = randomPrefix(rnd).Addr()
			}
			if !addr.IsValid() {
				continue
			}
			want := false
			for _, p := range plain {
				want = want || p.Contains(addr)
			}
			if got := table.contains(addr); got != want {
				t.Fatalf("%d networks, %s: got %t, want %t", n, addr, got, want)
			}
		}
	}
}

// randomPrefix is of a few neighbourhoods, so that networks overlap and touch.
func randomPrefix(rnd *rand.Rand) netip.Prefix {
	if rnd.IntN(2) == 0 {
		a := netip.AddrFrom4([4]byte{byte(10 + rnd.IntN(40)), byte(rnd.IntN(256)), byte(rnd.IntN(256)), byte(rnd.IntN(256))})
		return netip.PrefixFrom(a, 12+rnd.IntN(21))
	}
	if rnd.IntN(3) == 0 { // many in one /64, which the tree cannot tell apart
		a := [16]byte{0x20, 1, 0x0d, 0xff, 14: byte(rnd.IntN(256)), 15: byte(rnd.IntN(256))}
		return netip.PrefixFrom(netip.AddrFrom16(a), 126+rnd.IntN(3))
	}
	a := [16]byte{0x20, 1, 0x0d, byte(rnd.IntN(4)), byte(rnd.IntN(256)), byte(rnd.IntN(256)), byte(rnd.IntN(256)), byte(rnd.IntN(256)), 15: byte(rnd.IntN(256))}
	return netip.PrefixFrom(netip.AddrFrom16(a), 34+rnd.IntN(95))
}

func lastOf(p netip.Prefix) netip.Addr {
	var b builder
	b.prefix(p)
	if len(b.v4) > 0 {
		n := b.v4[0].last
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}
	u, a := b.v6[0].last, [16]byte{}
	for i := range 8 {
		a[i], a[8+i] = byte(u.hi>>(56-8*i)), byte(u.lo>>(56-8*i))
	}
	return netip.AddrFrom16(a)
}

// manyNetworks is a feed of n networks that do not touch, half of them IPv6.
func manyNetworks(n int) []byte {
	var feed bytes.Buffer
	for i := range n / 2 {
		v := uint32(i) * 7919
		fmt.Fprintf(&feed, "%d.%d.%d.%d\n", 1+i*223/(n/2), byte(v>>16), byte(v>>8), byte(v))
		fmt.Fprintf(&feed, "2a%02x:%x:%x:%x::/64 ; feed\n", i%16, i>>8, uint16(v), 2*(i&0xff))
	}
	return feed.Bytes()
}

func TestMemoryOfAMillion(t *testing.T) {
	feed := manyNetworks(1_000_000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	table, err := networks(bytes.NewReader(feed))
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d ranges in %d KiB", table.size(), used>>10)
	if used > 32<<20 {
		t.Errorf("a million networks take %d bytes, want at most 32 MiB", used)
	}
	if table.size() < 900_000 {
		t.Errorf("got %d ranges, want about a million: the test's feed is wrong", table.size())
	}
	runtime.KeepAlive(feed)
}

func BenchmarkContainsOfAMillion(b *testing.B) {
	table, err := networks(bytes.NewReader(manyNetworks(2_000_000))) // a million each
	if err != nil {
		b.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	v4, v6 := make([]netip.Addr, 1<<16), make([]netip.Addr, 1<<16)
	for i := range v4 {
		n := rnd.Uint32()
		v4[i] = netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		v6[i] = netip.AddrFrom16([16]byte{0x2a, byte(n % 16), byte(n >> 20 & 15), byte(n >> 12), byte(n >> 9), byte(n >> 3), 0, byte(n), 15: 1})
	}
	for name, addrs := range map[string][]netip.Addr{"ipv4": v4, "ipv6": v6} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			found := 0
			for i := 0; b.Loop(); i++ {
				if table.contains(addrs[i%len(addrs)]) {
					found++
				}
			}
		})
	}
}

func TestNetworksFile(t *testing.T) {
	table, err := networks(strings.NewReader("\ufeff# a feed\r\n\r\n192.0.2.0/24\r\n 198.51.100.7 ; SBL1\n203.0.113.1-203.0.113.9 # range\n2001:db8::/32\n;end"))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{
		"192.0.2.255": true, "198.51.100.7": true, "198.51.100.8": false, "203.0.113.9": true, "203.0.113.10": false, "2001:db8::1": true,
	} {
		if got := table.contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("contains %s: got %t, want %t", addr, got, want)
		}
	}
	for text, want := range map[string]string{
		"192.0.2.0/24\nfoo\n":                    `line 2: "foo" is not a network`,
		"\n#\n0.0.0.0/0\n":                       "line 3: 0.0.0.0/0 is everybody",
		"::/0":                                   "line 1: ::/0 is everybody",
		"192.0.2.9-192.0.2.1":                    "line 1: ",
		"192.0.2.9-2001:db8::":                   "line 1: ",
		"192.0.2.0/33":                           "line 1: ",
		"fe80::1%eth0":                           "line 1: ",
		"::ffff:0:0/90":                          "line 1: ",
		"10.0.0.1\n" + strings.Repeat("1", 5000): "line 2: is longer",
		"<html>\x00":                             `line 1: "<html>?" is not`,
	} {
		_, err := networks(strings.NewReader(text))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40q: got error %v, want one that begins with %q", text, err, want)
		}
	}
}

func TestAccountsFile(t *testing.T) {
	a, err := readAccounts(strings.NewReader("# gone\nBob@Example.ORG\nmallory # came back\n@Gone.example\n"))
	if err != nil {
		t.Fatal(err)
	}
	for account, want := range map[string]bool{
		"bob@example.org": true, "alice@example.org": false, "mallory": true, "x@gone.example": true, "gone.example": false, "bob": false,
	} {
		if got := a.has(account); got != want {
			t.Errorf("%s: got %t, want %t", account, got, want)
		}
	}
	for _, bad := range []string{"@", "@..", "a b@example.org", "@example.org@"} {
		if _, err := readAccounts(strings.NewReader("x\n" + bad)); err == nil || !strings.HasPrefix(err.Error(), "line 2: ") {
			t.Errorf("%q: got error %v, want one of line 2", bad, err)
		}
	}
}

func FuzzNetworks(f *testing.F) {
	for _, seed := range []string{"10.0.0.0/8\n::1", "1.2.3.4-1.2.3.9", "::ffff:1.2.3.4/100", "#x\n;y", "2001:db8::/32 ; z"} {
		f.Add(seed, uint64(1), uint64(2))
	}
	f.Fuzz(func(t *testing.T, feed string, hi, lo uint64) {
		table, err := networks(strings.NewReader(feed))
		if err != nil {
			return
		}
		// Whatever a line says alone, the table says as well.
		for _, line := range strings.Split(feed, "\n") {
			text := uncommented(strings.TrimPrefix(line, "\ufeff"))
			p, err := network(text)
			if err != nil {
				continue
			}
			if !table.contains(p.Addr()) || !table.contains(lastOf(p)) {
				t.Errorf("%s is not in the table", p)
			}
		}
		if len(table.v4.first)+len(table.v6.list) == 0 && table.contains(netip.IPv6Unspecified()) {
			t.Error("an empty table contains something")
		}
	})
}

package directory

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/popgate/popgate/auth"
)

const million = 1_000_000

// manyUsers are the lists of a provider: 1,000,000 users in 5,000 domains on 20 servers.
var manyUsers = []struct {
	name, header string
	line         func(user, domain string, n int) string
	config       func(path string) Config
}{
	{"file.csv", "user,backend,name,tenant\n",
		func(user, domain string, n int) string {
			return fmt.Sprintf("%s@%s,pop%02d,%s,tenant%d\n", user, domain, n%20, user, n%100)
		},
		func(path string) Config { return Config{Type: "file", File: FileConfig{Path: path}} }},
	{"file.yaml", "",
		func(user, domain string, n int) string {
			return fmt.Sprintf("- user: %s@%s\n  backend: pop%02d\n  name: %s\n  tenant: tenant%d\n", user, domain, n%20, user, n%100)
		},
		func(path string) Config { return Config{Type: "file", File: FileConfig{Path: path}} }},
	{"braces.yaml", "",
		func(user, domain string, n int) string {
			return fmt.Sprintf("- {user: %s@%s, backend: pop%02d, name: %s, tenant: tenant%d}\n", user, domain, n%20, user, n%100)
		},
		func(path string) Config { return Config{Type: "file", File: FileConfig{Path: path}} }},
	{"popmap", "# who lives where\n",
		func(user, domain string, n int) string {
			return fmt.Sprintf("%s@%s:%s@10.0.0.%d:110\n", user, domain, user, n%20+1)
		},
		func(path string) Config {
			c := defaultPopmap()
			c.Path, c.UsernameFromDatabase = path, true
			return Config{Type: "popmap", Popmap: c}
		}},
	{"passwd_file", "",
		func(user, domain string, n int) string {
			return fmt.Sprintf("%s@%s:{SSHA}NBEbcG4CHMaVfbpmIL8mALbjsQZhZWQ6c2FsdA%06x::::::proxy host=10.0.0.%d\n", user, domain, n, n%20+1)
		},
		func(path string) Config {
			c := defaultPasswdFile()
			c.Path = path
			return Config{Type: "passwd_file", PasswdFile: c}
		}},
}

func manyUser(n int) (user, domain string) {
	return fmt.Sprintf("first.last%06d", n), fmt.Sprintf("customer%04d.example.net", n%5000)
}

// writeMany writes a list of n users.
func writeMany(b *testing.B, kind, n int) Config {
	b.Helper()
	k := manyUsers[kind]
	path := filepath.Join(b.TempDir(), k.name)
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriter(f)
	_, _ = w.WriteString(k.header)
	for i := range n {
		user, domain := manyUser(i)
		_, _ = w.WriteString(k.line(user, domain, i))
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return k.config(path)
}

func openFile(t testing.TB, c Config) Opened {
	t.Helper()
	kind, ok := c.kind()
	if !ok {
		t.Fatalf("no type %q", c.Type)
	}
	o, err := kind.open(&c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkFileLoad reads lists of 1,000,000 users; bytes/user is what stays in memory.
func BenchmarkFileLoad(b *testing.B) {
	for kind, k := range manyUsers {
		b.Run(k.name, func(b *testing.B) {
			c := writeMany(b, kind, million)
			before := heap()
			var o Opened
			for b.Loop() {
				kind, _ := c.kind()
				var err error
				if o, err = kind.open(&c, nil); err != nil { // nothing holds it longer than to the next
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(heap()-before)/million, "bytes/user")
			runtime.KeepAlive(o)
		})
	}
}

// BenchmarkFileLookup asks for users out of 1,000,000 in random order, one after the other.
func BenchmarkFileLookup(b *testing.B) {
	for kind, k := range manyUsers {
		b.Run(k.name, func(b *testing.B) {
			o := openFile(b, writeMany(b, kind, million))
			queries := make([]auth.Query, 1<<16)
			for i := range queries {
				user, domain := manyUser(rand.IntN(million))
				queries[i] = query(b, user+"@"+domain)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := o.Lookup(b.Context(), &queries[i%len(queries)]); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

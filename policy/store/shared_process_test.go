package store

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/auth/peers"
	"github.com/popgate/popgate/policy/cluster"
)

// processVariable has this test binary be one node of a cluster: it names the Redis.
const processVariable = "POPGATE_TEST_STORE_NODE"

func TestMain(m *testing.M) {
	if address := os.Getenv(processVariable); address != "" {
		if err := processMain(address, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// What the processes share: a rate of 1000 a second, and places.
const (
	rateKey, placeKey = 1, 2
	rateTurn          = time.Millisecond
	rateMost          = 1000
	placesMost        = 100
	processLease      = 4 * time.Second
)

// report is what a process says of what it was told to do.
type report struct {
	Granted     int
	First, Last int64   // when, in nanoseconds of the wall's clock
	Events      []event // of churn
	Held        int     // places
	Trouble     string  // at the end
}

// event is a place that came to be held, or not any more.
type event struct {
	At int64
	N  int
}

// processMain is a node that does what it is told, one word a line, and answers each with a report.
func processMain(address string, in io.Reader, out io.Writer) error {
	config := shareConfig(address)
	config.Lease = processLease
	client, err := cluster.New(config.Redis)
	if err != nil {
		return err
	}
	s := NewShared(NewMemory(1<<10), client, config, SharedOptions{Node: "process"})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = s.Run(ctx) }()
	p := process{s: s}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var r report
		switch lines.Text() {
		case "join":
			for s.Trouble() != nil {
				<-time.After(time.Millisecond)
			}
		case "rate":
			r = p.rate(5 * time.Second)
		case "churn":
			r = p.churn(3 * time.Second)
		case "fill":
			r = p.fill(100)
		}
		if err := s.Trouble(); err != nil {
			r.Trouble = err.Error()
		}
		r.Held = p.held
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return err
		}
	}
	return nil
}

type process struct {
	s    *Shared
	held int
}

// rate takes turns for as long as it is told, from many goroutines.
func (p *process) rate(d time.Duration) (r report) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for range 8 {
		wg.Go(func() {
			for time.Now().Before(end) {
				if p.s.Take(context.Background(), turns(rateKey, rateTurn, rateMost)) != -1 {
					<-time.After(500 * time.Microsecond)
					continue
				}
				now := time.Now().UnixNano()
				mu.Lock()
				if r.Granted++; r.First == 0 {
					r.First = now
				}
				r.Last = max(r.Last, now)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return r
}

// churn takes places and gives them back after a short while, and says when it held how many for certain.
func (p *process) churn(d time.Duration) (r report) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	note := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		r.Events = append(r.Events, event{time.Now().UnixNano(), n})
	}
	end := time.Now().Add(d)
	for range 60 {
		wg.Go(func() {
			for time.Now().Before(end) {
				if p.s.Take(context.Background(), places(placeKey, placesMost)) == -1 {
					note(1)
					<-time.After(rand.N(20 * time.Millisecond))
					note(-1)
					p.s.Give(places(placeKey, placesMost))
				}
				<-time.After(time.Millisecond)
			}
		})
	}
	wg.Wait()
	return r
}

// fill takes places and keeps them, until it is refused so many times in a row.
func (p *process) fill(refusals int) (r report) {
	for n := 0; n < refusals; n++ {
		if p.s.Take(context.Background(), places(placeKey, placesMost)) == -1 {
			p.held++
			n = 0
		}
		<-time.After(2 * time.Millisecond)
	}
	return r
}

// child is a process of the test's.
type child struct {
	cmd *exec.Cmd
	in  io.Writer
	out *json.Decoder
}

func runChild(t *testing.T, address string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processVariable+"="+address)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &child{cmd, in, json.NewDecoder(out)}
}

// all has all children do one thing at once.
func all(t *testing.T, children []*child, what string) (reports []report) {
	t.Helper()
	var errs []error
	for _, c := range children {
		_, err := fmt.Fprintln(c.in, what)
		errs = append(errs, err)
	}
	for _, c := range children {
		var r report
		errs = append(errs, c.out.Decode(&r))
		if r.Trouble != "" {
			errs = append(errs, errors.New(r.Trouble))
		}
		reports = append(reports, r)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return reports
}

// TestSharedProcesses has three processes hold limits in sum, and one of them killed.
func TestSharedProcesses(t *testing.T) {
	r := runServer(t)
	var children []*child
	for range 3 {
		children = append(children, runChild(t, r.address))
	}
	all(t, children, "join")
	t.Run("rate", func(t *testing.T) { checkRate(t, all(t, children, "rate")) })
	t.Run("places", func(t *testing.T) { checkChurn(t, all(t, children, "churn")) })
	t.Run("killed", func(t *testing.T) { checkKilled(t, r, children) })
}

// checkRate looks at what was granted from the first turn to the last.
func checkRate(t *testing.T, reports []report) {
	t.Helper()
	granted, first, last := 0, reports[0].First, int64(0)
	for _, r := range reports {
		granted += r.Granted
		first, last = min(first, r.First), max(last, r.Last)
	}
	want := rateMost + int(time.Duration(last-first)/rateTurn)
	t.Logf("turns: %d of %d", granted, want)
	if granted > want*101/100 || granted < want*99/100 {
		t.Errorf("turns in %s: got %d, want %d within 1 %%", time.Duration(last-first), granted, want)
	}
}

// checkChurn looks at how many places were held at any time.
func checkChurn(t *testing.T, reports []report) {
	t.Helper()
	var events []event
	for _, r := range reports {
		events = append(events, r.Events...)
	}
	slices.SortFunc(events, func(a, b event) int {
		if a.At != b.At {
			return int(min(max(a.At-b.At, -1), 1))
		}
		return a.N - b.N
	})
	held, most := 0, 0
	for _, e := range events {
		held += e.N
		most = max(most, held)
	}
	t.Logf("places: %d at most, %d times taken", most, len(events)/2)
	if most > placesMost || most < placesMost*99/100 {
		t.Errorf("places held at once: got %d, want %d", most, placesMost)
	}
	if held != 0 {
		t.Errorf("at the end: got %d places held, want none", held)
	}
}

// checkKilled kills a process that has places: others get them when its lease is over, and no sooner, and not one more.
func checkKilled(t *testing.T, r *server, children []*child) {
	t.Helper()
	sum := func(reports []report) (n int) {
		for _, r := range reports {
			n += r.Held
		}
		return n
	}
	r.holds(t, placeKey, 0)
	filled := all(t, children, "fill")
	if got := sum(filled); got != placesMost {
		t.Fatalf("places: got %d, want all %d", got, placesMost)
	}
	if filled[2].Held == 0 {
		t.Fatal("the third process has no place to lose")
	}
	killed := time.Now()
	if err := children[2].cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := sum(all(t, children[:2], "fill")); got != placesMost-filled[2].Held {
		t.Errorf("before the lease is over: got %d places, want %d", got, placesMost-filled[2].Held)
	}
	peers.Eventually(t, "the places of the killed process", func() error {
		again := all(t, children[:2], "fill")
		got := sum(again)
		if got > placesMost {
			t.Fatalf("places: got %d, want at most %d", got, placesMost)
		}
		if got < placesMost {
			return fmt.Errorf("got %d of %d", got, placesMost)
		}
		return nil
	})
	t.Logf("the places were free %s after the kill", time.Since(killed).Round(time.Millisecond))
	if took := time.Since(killed); took < processLease/2 {
		t.Errorf("the places were free %s after the kill, want not before %s", took, processLease/2)
	}
}

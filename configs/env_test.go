package configs

import (
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestEnvironment(t *testing.T) {
	c := mustLoad(t, "limits: {sessions: 5, failure_delay: 1s}\n"+plain,
		"POPGATE_LIMITS_SESSIONS=7", "POPGATE_LIMITS_LOGINS_PER_IP=60/m", "POPGATE_TIMEOUTS_IDLE=11m", "POPGATE_NODE=007",
		"POPGATE_BOUNDS_LINE=2KiB", "POPGATE_AUDIT_PATH=", "OTHER_LIMITS_SESSIONS=1")
	for _, e := range []struct {
		what      string
		got, want any
	}{
		{"over the file", c.Limits.Sessions, 7},
		{"beside it in the file", c.Limits.FailureDelay, time.Second},
		{"key that is not in the file", c.Limits.LoginsPerIP.String(), "60/m"},
		{"section that is not in the file", c.Timeouts.Idle, 11 * time.Minute},
		{"digits for text", c.Node, "007"},
		{"size", int(c.Bounds.Line), 2048},
		{"empty", c.Audit.Path, ""},
		{"warnings", len(c.Warnings), 0},
	} {
		if e.got != e.want {
			t.Errorf("%s: got %v, want %v", e.what, e.got, e.want)
		}
	}
}

func TestEnvironmentFaults(t *testing.T) {
	_, err := loadString("limits: {sessions: 5}\n"+plain, "POPGATE_LIMITS_SESSIONS=many", "POPGATE_TIMEOUTS_IDLE=10",
		"POPGATE_LOG_LEVEL=loud", "POPGATE_NODE=\xff", "POPGATE_BOUNDS_BAD_COMMANDS=", "POPGATE_METRICS_ADDRESS=127.0.0.1:995")
	want := []string{
		`POPGATE_BOUNDS_BAD_COMMANDS: is "", which is no whole number; write digits alone, without quotes`,
		`POPGATE_LIMITS_SESSIONS: is "many", which is no whole number; write digits alone, without quotes`,
		`POPGATE_LOG_LEVEL: is "loud"; write debug, info, warn or error`,
		`POPGATE_METRICS_ADDRESS: is "127.0.0.1:995", which overlaps with ":995" of listeners[0].address in line 1; choose another port`,
		`POPGATE_NODE: is not UTF-8 text`,
		`POPGATE_TIMEOUTS_IDLE: is "10" without a unit; write 10s for seconds, 10m for minutes`,
	}
	if got := strings.Split(err.Error(), "\n"); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%v\nwant\n%s", err, strings.Join(want, "\n"))
	}
}

func TestEnvironmentWarnings(t *testing.T) {
	c := mustLoad(t, plain, "POPGATE_LIMIT_SESSIONS=7", "POPGATE_XYZZY=1", "POPGATE_LIMITS_EXEMPT=10.0.0.0/8",
		"POPGATE_SERVICE_HOST=10.1.1.1", "POPGATE_SERVICE_PORT=995", "POPGATE_SERVICE_PORT_POP3S=995", "POPGATE_PORT=tcp://10.1.1.1:995",
		"POPGATE_PORT_995_TCP_ADDR=10.1.1.1", "POPGATE_METRICS_SERVICE_HOST=10.1.1.2", "POPGATE_METRICS_PORT=tcp://10.1.1.2:9995")
	want := []string{
		"environment: POPGATE_LIMITS_EXEMPT stands for no key and is ignored; lists and sections are written in the file",
		"environment: POPGATE_LIMIT_SESSIONS stands for no key and is ignored; did you mean POPGATE_LIMITS_SESSIONS?",
		"environment: POPGATE_XYZZY stands for no key and is ignored",
	}
	if !reflect.DeepEqual(c.Warnings, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(c.Warnings, "\n"), strings.Join(want, "\n"))
	}
}

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "a", "B_2": "${A}", "YAML": "x\nlog: {level: debug}", "BAD": "\xff"}
	for _, e := range []struct {
		in, want string
		done     bool
		problem  string
	}{
		{"", "", false, ""},
		{"plain $ $A $$ {A}", "plain $ $A $$ {A}", false, ""},
		{"${A}", "a", true, ""},
		{"x${A}y${A}z", "xayaz", true, ""},
		{"${B_2}", "${A}", true, ""}, // what is put in is not looked at again
		{"$${A}", "${A}", false, ""},
		{"$$${A}", "$${A}", false, ""},
		{"${C}", "", false, "the environment variable C is not set"},
		{"${BAD}", "", false, "the environment variable BAD is not UTF-8 text"},
		{"${A", "", false, "${ is not followed by a variable's name and }"},
		{"${}", "", false, "${ is not followed by a variable's name and }"},
		{"${2}", "", false, "${ is not followed by a variable's name and }"},
	} {
		got, done, problem := expand(e.in, vars)
		if got != e.want || done != e.done || problem != e.problem {
			t.Errorf("%q: got %q, %v, %q, want %q, %v, %q", e.in, got, done, problem, e.want, e.done, e.problem)
		}
	}
	for _, s := range []string{"", "a", "$", "${", "$${", "$$${A}", "a${A}$", "$$$${${"} {
		if got, done, problem := expand(escape(s), nil); got != s || done || problem != "" {
			t.Errorf("%q escaped is %q, which expands to %q, %q", s, escape(s), got, problem)
		}
	}
}

// TestExpandInFile shows that values are expanded and nothing else, and that a value cannot become more than one.
func TestExpandInFile(t *testing.T) {
	c := mustLoad(t, `
# ${UNSET}
node: ${NODE}
limits:
  sessions: ${SESSIONS}
  failure_delay: "${DELAY}"
bounds: {line: "${LINE}"}
listeners: [{name: a, address: "127.0.0.1:${PORT}", default_domain: "", forbidden: "$${x}", allow_authzid: false}]
`+plain, "NODE=x, log: {level: debug} # c", "SESSIONS=12", "DELAY=3s", "LINE=1KiB", "PORT=1995")
	if c.Node != "x, log: {level: debug} # c" || c.Log.Level != "info" {
		t.Errorf("got node %q and level %q, want one value and the default", c.Node, c.Log.Level)
	}
	if c.Limits.Sessions != 12 || c.Limits.FailureDelay != 3*time.Second || c.Bounds.Line != 1024 || c.Listeners[0].Address != "127.0.0.1:1995" {
		t.Errorf("got %+v, %+v, %+v", c.Limits, c.Bounds, c.Listeners[0])
	}
	if _, err := loadString("limits: {sessions: \"${SESSIONS}\"}\n"+plain, "SESSIONS=12"); err == nil {
		t.Error("a text in quotes became a number")
	}
	if _, err := loadString("node: ${NODE}\n"+plain, "NODE=x\nlog: {level: debug}"); err == nil {
		t.Error("a variable brought a second line")
	}
	if _, err := loadString("node: a\n${NODE}: b\n"+plain, "NODE=state_dir"); err == nil {
		t.Error("a key was expanded")
	}
}

// TestLoadAtOnce: reloads may overlap with a check; viper must not be shared between them.
func TestLoadAtOnce(t *testing.T) {
	want := mustLoad(t, everything)
	var loads sync.WaitGroup
	for range 8 {
		loads.Go(func() {
			if got, err := loadString(everything); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	loads.Wait()
}

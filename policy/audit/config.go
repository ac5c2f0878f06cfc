package audit

import (
	"fmt"
	"path/filepath"
	"strings"
)

// OnFailure says what becomes of a login whose record cannot be written.
type OnFailure string

// The values of on_failure.
const (
	Refuse OnFailure = "refuse" // the login is refused: no login without a record
	Drop   OnFailure = "drop"   // the login goes on: the record is lost, and counted
)

// Standard is the path that means standard output.
const Standard = "-"

// Config is the audit section of the configuration.
type Config struct {
	// The file that audit records are appended to, one line of JSON each. `-` is standard output, where a container or
	// the journal picks them up; empty writes no records at all. SIGHUP reopens the file.
	Path string `yaml:"path"`
	// What a login gets when its record cannot be written, because the disk is full for instance. `refuse`: it is
	// refused for now, so that nobody comes in without a record. `drop`: it goes on, the lost record is counted in
	// `popgate_audit_failures_total`.
	OnFailure OnFailure `yaml:"on_failure"`
	// Whether each session leaves a record when it begins, too. Its end and its logins always leave one.
	SessionOpened bool `yaml:"session_opened"`
	// A file that failed logins are appended to as well, as lines of Dovecot's log, for fail2ban and CrowdSec with the rules
	// for Dovecot that they come with. Empty writes none. SIGHUP reopens the file. A login never waits for its line, and goes
	// on where it cannot be written, whatever `on_failure` says.
	DovecotLog string `yaml:"dovecot_log"`
}

// DefaultConfig writes to standard output, and refuses logins that it cannot record.
func DefaultConfig() Config {
	return Config{Path: Standard, OnFailure: Refuse}
}

// Validate tells fault of every value that cannot be meant, by its key. Whether the file can be opened is for Prepare.
func (c Config) Validate(fault func(key, problem string)) {
	if strings.HasSuffix(c.Path, "/") {
		fault("path", fmt.Sprintf("%q names a folder: write a file in it, such as %saudit.jsonl", c.Path, c.Path))
	}
	switch {
	case c.DovecotLog == "":
	case strings.HasSuffix(c.DovecotLog, "/"):
		fault("dovecot_log", fmt.Sprintf("%q names a folder: write a file in it, such as %sfailed-logins.log", c.DovecotLog, c.DovecotLog))
	case c.DovecotLog == Standard:
		fault("dovecot_log", `is "-", and standard output is no file that fail2ban could read: write the path of one`)
	case filepath.Clean(c.DovecotLog) == filepath.Clean(c.Path):
		fault("dovecot_log", "is the file of the records, too: write another one")
	}
	if c.OnFailure != Refuse && c.OnFailure != Drop {
		fault("on_failure", fmt.Sprintf("%q is not known: write refuse or drop", c.OnFailure))
	}
}

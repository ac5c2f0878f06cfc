package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the tests run popgate as a program of its own, and the flood
// of flood_test.go: the test binary stands in for them.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"popgate": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
		"flooder": func() {
			if err := flooder(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		},
	})
}

// TestScript runs testdata/script: the real program between real clients and a
// real Dovecot. Besides testscript's own commands a script has
//
//	needs PROGRAM...            skip the script, or fail it in CI, where one is missing
//	expand FILE...              put the variables' values for ${NAME} in files
//	freeport VAR...             set each variable to a port free on loopback
//	mail ACCOUNT KIND[:N]...    make up mail for an account (scripttest_mail_test.go has the kinds)
//	dovecot plain|default|tls|xclient|proxy
//	                            start Dovecot with that mail on $BACKEND; its log is $DOVECOT_LOG
//	courier [tls]               start Courier on $COURIER, with STLS, with clear passwords or without; its log is $COURIER_LOG
//	mailutils                   start GNU Mailutils' pop3d, with STLS, on $MAILUTILS
//	dovecotas VAR PASSWORD [MASTER SECRET]
//	                            start one of several, with passwords of its own, on $VAR; its log is $VAR_LOG
//	mailserver VAR ACCOUNTS     start a quick POP3 server on $VAR
//	fickle VAR HOST:PORT|good|refuses|silent|dies|mute
//	                            a server with faults on $VAR (scripttest_fickle_test.go)
//	fail2ban LOCAL              start fail2ban with the jail of deploy/fail2ban and LOCAL as jail.local; bans go to $BANNED
//	mmdb FILE country|asn NETWORK=VALUE...
//	                            make a database of countries or of the operators of networks
//	silentdns VAR               a UDP port that takes questions and answers none
//	wforced VAR allow|refuse|wait:N|garbage|slow|broken|down
//	                            a weakforced on $VAR that answers so (scripttest_wforced_test.go)
//	postgres [STATEMENTS]       start PostgreSQL, its socket in $PGDIR
//	stream NAME start|more|stop ARG...
//	                            logins all the time (scripttest_stream_test.go)
//	sample FILE|DIR...          copy files of other programs' packages to $OLD
//	oldproxy ADDRESS PROGRAM ARG...
//	                            start another proxy without root's rights, and wait for it (scripttest_migrate_test.go)
//	retry HOST:PORT USER        log in until it works
//	until REGEXP PROGRAM ARG... run a program until it prints that
//	start NAME PROGRAM ARG...   start a program, its output in NAME.log
//	signal SIGNAL NAME          send it a signal
//	[!] running NAME            say whether it has not ended yet
//	await NAME STATUS           wait for it to end with that exit status
//	waitfor FILE REGEXP         wait for text in a file that grows
//	[!] audit FIELD=PATTERN...  wait for a record like that in audit.jsonl (scripttest_audit_test.go)
//	waitready HOST:PORT         wait until GET /readyz there says 200
//	cmpmail [-lf] ACCOUNT DIR   hold the messages in the files below DIR against those made
//	crowd HOST:PORT COUNT       open connections that stay and never speak
//	pop3 NAME dial|tls|send|expect|flood|closed ARG...
//	                            a client spoken word by word (scripttest_pop3_test.go)
//	pebble [LIFE]               start an ACME issuer, $ACME (scripttest_pebble_test.go)
//	mailbox COUNT, sessions ... a POP3 server in memory, and clients that fetch from it all the time (scripttest_sessions_test.go)
//	strangers HOST:PORT COUNT   handshakes for invented names (scripttest_strangers_test.go)
//	certificate [-rsa | -ca CA] PREFIX NAME...
//	                            make tls/PREFIXcert.pem and tls/PREFIXkey.pem for these names
//	serial VAR HOST:PORT SERVERNAME [OTHER]
//	                            set VAR to the serial number of the certificate shown, once it is not OTHER
//	[!] findings testssl|sslscan FILE [KNOWN...]
//	                            hold what a scanner has found against what is known
//
// and in tls/ a CA (ca.pem) with a certificate for mail.example.org,
// pop.example.net and loopback (cert.pem, key.pem). Every account's password is
// "open sesame".
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setupScript,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"needs":       cmdNeeds,
			"expand":      cmdExpand,
			"freeport":    cmdFreeport,
			"mail":        cmdMail,
			"crowd":       cmdCrowd,
			"dovecot":     cmdDovecot,
			"courier":     cmdCourier,
			"mailutils":   cmdMailutils,
			"dovecotas":   cmdDovecotAs,
			"mailserver":  cmdMailserver,
			"fickle":      cmdFickle,
			"fail2ban":    cmdFail2ban,
			"mmdb":        cmdMMDB,
			"silentdns":   cmdSilentDNS,
			"wforced":     cmdWforced,
			"postgres":    cmdPostgres,
			"stream":      cmdStream,
			"retry":       cmdRetry,
			"until":       cmdUntil,
			"start":       cmdStart,
			"sample":      cmdSample,
			"oldproxy":    cmdOldproxy,
			"signal":      cmdSignal,
			"running":     cmdRunning,
			"audit":       cmdAudit,
			"await":       cmdAwait,
			"waitfor":     cmdWaitfor,
			"waitready":   cmdWaitready,
			"waitsays":    cmdWaitsays,
			"cmpmail":     cmdCmpmail,
			"pop3":        cmdPOP3,
			"pebble":      cmdPebble,
			"mailbox":     cmdMailbox,
			"sessions":    cmdSessions,
			"strangers":   cmdStrangers,
			"certificate": cmdCertificate,
			"serial":      cmdSerial,
			"findings":    cmdFindings,
		},
	})
}

// setupScript lays out one script's world.
func setupScript(env *testscript.Env) error {
	s := &stage{t: env.T(), work: env.WorkDir, programs: map[string]*program{}, clients: map[string]*popClient{},
		streams: map[string]*stream{}, fickle: map[string]*fickle{}}
	env.Values[stageKey{}] = s
	env.Defer(s.close)

	// Debian's own programs before the shims of version managers, which need a home; dovecot is in sbin.
	path := strings.SplitN(env.Getenv("PATH"), string(filepath.ListSeparator), 2)
	path = append(path[:1], append([]string{"/usr/bin", "/bin", "/usr/sbin"}, path[1:]...)...)
	env.Setenv("GORACE", "atexit_sleep_ms=10") // by default each command of a script sleeps for a second at its end
	env.Setenv("PATH", strings.Join(path, string(filepath.ListSeparator)))
	for name, dir := range map[string]string{"HOME": "home", "XDG_STATE_HOME": "state", "XDG_RUNTIME_DIR": "run"} {
		dir = filepath.Join(env.WorkDir, dir)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		env.Setenv(name, dir)
	}
	var err error
	s.ca, err = writeCertificates(filepath.Join(env.WorkDir, "tls"))
	return err
}

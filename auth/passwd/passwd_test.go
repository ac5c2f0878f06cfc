package passwd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// home is the network that checks are for where it does not matter.
var home netip.Prefix

// known are hashes of "päss word" (those of RFCs: of theirs) from other programs, so that each format is held to somebody
// else's idea of it on every machine.
var known = []struct{ secret, hash string }{
	{"päss word", "{SHA1}zH9xIdvvCk1Psi4ui9OBlBDDcdA="},
	{"päss word", "{sha}zH9xIdvvCk1Psi4ui9OBlBDDcdA"},
	{"päss word", "{SHA}cc7f7121dbef0a4d4fb22e2e8bd3819410c371d0"},
	{"päss word", "{SSHA512}+ONRIBCsBu8Pu/gil+1FC+Ucvqqv7mo/0a70JNKeVEYLy6KZdn4xFB+GK9uQkoy7rIoW25xgBtzySfPdO4rb3Tj+8KI="},
	{"päss word", "{SCRAM-SHA-256}4096,8dbGJg5qWZvZEbFG5jyIQw==,Z0jEIoWxFoqJtzlNvaq2bxYtnHaXUrQEhDqKyWMBO6Y=,gN//YzwobWrCQvbWBFyog5I/ZbjiBmXrhaLAOQ13LQ8="},
	{"päss word", "{SCRAM-SHA-1}4096,CwG4iaxgNPZqixiY4AtdNQ==,2GHVtBW6MUgxR+9Rb7RrKqgsLPw=,skkyE4AYkyl//UfSRvHCfK59mIs="},
	{"päss word", "{BLF-CRYPT}$2y$05$xsIlhjXhniLH7QBk5pujzuTYWfw2IUoigSmNJDi2natyReb.WLFLO"},
	{"päss word", "$2a$05$xsIlhjXhniLH7QBk5pujzuTYWfw2IUoigSmNJDi2natyReb.WLFLO"},
	{"päss word", "{CRYPT}$2y$05$AOToSTUPHA99U4o0pvHOA.t4WsLeU1bGmG..WC97b4s6Xnf8dIa.C"},
	{"päss word", "{PLAIN}päss word"}, {"päss word", "{CLEAR}päss word"}, {"päss word", "{cleartext}päss word"},
	{"päss word", "{PLAIN.B64}cMOkc3Mgd29yZA=="}, {"päss word", "{PLAIN.hex}70c3a4737320776f7264"},
	{"päss word", "{SHA512}GrhlAFeRLpophYwSAbnvPuedZl33nkCa4IwEu3dYl3vjmuWcs4twIVKPdswchsGqVCmsfBLQ5YfwisgfgaloAQ=="},
	{"päss word", "{SSHA}qY/0lCMu++F2PoR826Dru3xYlrqKycJG"},
	{"päss word", "{MD5-CRYPT}$1$8sggUCVB$cI41UMGJ8tCSWgN43iBZj0"}, {"päss word", "{MD5}$1$3ZF7UqPT$7YLO1AwumutdvS1ZaGte51"},
	{"päss word", "{PLAIN-MD5}ad5ee778d14417c95e396d7087538caa"}, {"päss word", "{MD5}rV7neNFEF8leOW1wh1OMqg=="},
	{"päss word", "{PLAIN-MD5.B64}rV7neNFEF8leOW1wh1OMqg=="}, {"päss word", "{LDAP-MD5}rV7neNFEF8leOW1wh1OMqg=="},
	{"päss word", "{SHA512-CRYPT}$6$a1bc5r686IFFVB6N$eZRScdO96Ws/zBN3xkHcEtUjBKol1mneXX1cakbPsTLva2fZ4t.EONoW9yGs6wRHnOm9cwYizEgS.3iwQVzjy0"},
	{"päss word", "{SHA256-CRYPT}$5$c6frudXgavAW.n94$CsiNJfPzc3Eu1ewzZjtF5YJ9bOxfGuOVrhKboqPNAG2"},
	{"päss word", "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$q766n/OL9AGcH9lFb4Vt2g$8wQGi/sLhLBhLTFC5eDcnOuY7Ygj14+CJMNxDRlqigw"},
	{"päss word", "{SSHA256}17t7CBd8Dch0uQoOAL/uRAbouRUZ6TzGrS1cUc/RXiW9UqJc"},
	{"päss word", "{PBKDF2}$1$qYoauGQL31bTOWKN$5000$9042b63eb10f3c1e2e62b412b22b1656d2580342"},
	{"päss word", "{PBKDF2.B64}JDEkcVJQRHZHam1YOEgwOEc2RSQ1MDAwJDZiZGQ1YzBkMDAxOTdlZTFlMGI1MDg2ZWU2Mjc4ZDFkODgxOGVjMTg="},
	{"päss word", "{SMD5}wid+AAK1OPHQYx1+TF0NH1Tk7MQ="}, {"päss word", "{SMD5.HEX}a0a8d1c8d35890a52a1b8fd6f4735af6851fd09e"},
	{"päss word", "{SSHA.HEX}9e4026f869ea3fdee1b1de65b060593f5d3ab58f0f370510"},
	{"päss word", "{SHA256.HEX}80053c0c7c8ed6aeb9c948cee725149e7ea35e908940f0d8069076d273221ff9"},

	{"pass", "$y$j9T$xEcDkGVBARhCBpNkp4wa0/$gftFB28Xm4.cwMFlzrepSNj3ANQjl7x9wGi4YYIbAl9"},
	{"pass", "$7$CU..../....CR4Za4QM/W3aRoBgtANHE/$zLSBITVebfl4eixeri3jAXliOZQLxDkehfzgZAq3a5D"},
	{"pass", "$2b$05$D7IoTxVzxvvlelNHnID5u.lDVMlFVIm54QHdMhaFL6/a/f4Sz/ZgW"},
	{"pass", "$1$DHEmEFdM$gRZloawicwW76iU89i0pE1"},
	// RFC 6070 and RFC 7914 section 12, in passlib's writing.
	{"password", "$pbkdf2$4096$c2FsdA$SwB5AbdlSJq.rUnZJvch0GWkKcE"},
	{"passwd", "$pbkdf2-sha256$1$c2FsdA$VawEblbjCJ/sFpHCJUS2BflBhSFt3gRl5oudV8INrLxJypzM8Xm2RZkWZLOdd.8xfHG4RbHjC9UJESBB06GXgw"},
	{"passwd", "$pbkdf2-sha512$25$c2FsdA$EPeS1f5k9ZgCz1p43ecCnRhYVXZNcIXREY5iGWUwNuFDZ98nD/VcowCoWimrZNscJE2jlsdqHD5xi/75nBTD1Q"},
	{"password", "$scrypt$ln=10,r=8,p=16$TmFDbA$/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWIurzDZLiKjiG/xCSedmDDaxyevuUqD7m2DYMvfoswGQA"},
	{"pleaseletmein", "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofLVQylVYT8Pz2LUlwUkKpr55h6F3A1lHkDfzwF7RVdYhw"},
}

func TestKnown(t *testing.T) {
	c := New(2)
	for _, k := range known {
		holds(t, c, k.hash, k.secret)
	}
}

// holds is what must be true of any hash of a secret.
func holds(t *testing.T, c *Checker, hash, secret string) {
	t.Helper()
	if err := c.Check(t.Context(), home, hash, []byte(secret)); err != nil {
		t.Errorf("Check(%q, %q) = %v", hash, secret, err)
	}
	tries := []string{"", secret + "x", secret[:len(secret)-1], secret + "\x00", secret + "\x00" + secret, strings.ToUpper(secret), hash}
	if w, err := parse(hash); err == nil && w.memory > 1024 { // slow: each of them was seen with other hashes
		tries = tries[:2]
	}
	for _, wrong := range tries {
		if err := c.Check(t.Context(), home, hash, []byte(wrong)); !errors.Is(err, ErrWrong) {
			t.Errorf("Check(%q, %q) = %v, want ErrWrong", hash, wrong, err)
		}
	}
}

// program finds one of Debian's.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("there is no %s: install Debian's %s", name, pkg)
	}
	t.Skipf("there is no %s: install Debian's %s", name, pkg)
	return ""
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return strings.TrimRight(string(out), "\n")
}

// TestDoveadm checks all that Debian's doveadm makes, and that what cannot be checked is said by name.
func TestDoveadm(t *testing.T) {
	doveadm := program(t, "doveadm", "dovecot-core")
	c := New(2)
	listed := strings.Fields(output(t, doveadm, "pw", "-l"))
	if len(listed) < 20 {
		t.Fatalf("doveadm lists %d schemes", len(listed))
	}
	checked := 0
	for _, name := range listed {
		t.Run(name, func(t *testing.T) {
			const secret = "pa$$ {w}ö:rd"
			hash := output(t, doveadm, "pw", "-s", name, "-u", "alice@example.org", "-p", secret)
			if others[name] {
				if err := c.Check(t.Context(), home, hash, []byte(secret)); !errors.Is(err, ErrScheme) || !strings.Contains(err.Error(), name) {
					t.Errorf("Check(%q) = %v, want ErrScheme and the name", hash, err)
				}
				return
			}
			checked++
			holds(t, c, hash, secret)
			if strings.HasPrefix(name, "ARGON") {
				return // slow, and there is nothing more to see
			}
			for _, suffix := range []string{".b64", ".hex"} {
				holds(t, c, output(t, doveadm, "pw", "-s", name+suffix, "-p", secret), secret)
			}
		})
	}
	if want := len(schemes) - 1; checked < want-1 { // {ARGON2} is OpenLDAP's name, and {MD5} is one more of Dovecot's
		t.Errorf("checked %d schemes, want %d", checked, want)
	}
	for _, rounds := range [][]string{{"SHA512-CRYPT", "20000"}, {"BLF-CRYPT", "6"}, {"PBKDF2", "777"}} {
		holds(t, c, output(t, doveadm, "pw", "-s", rounds[0], "-r", rounds[1], "-p", "x y"), "x y")
	}
}

func TestMkpasswd(t *testing.T) {
	mkpasswd := program(t, "mkpasswd", "whois")
	c := New(2)
	for _, method := range []string{"yescrypt", "scrypt", "bcrypt", "bcrypt-a", "sha512crypt", "sha256crypt", "md5crypt"} {
		secrets := []string{"x", "pa$$ {w}ö:rd", strings.Repeat("long ", 20)}
		if method == "yescrypt" || method == "scrypt" {
			secrets = secrets[1:2] // slow
		}
		for _, secret := range secrets {
			hash := output(t, mkpasswd, "-m", method, secret)
			if strings.HasPrefix(method, "bcrypt") && len(secret) > 72 { // of which bcrypt sees 72 octets
				if err := c.Check(t.Context(), home, hash, []byte(secret)); err != nil {
					t.Errorf("Check(%q) = %v", hash, err)
				}
				continue
			}
			holds(t, c, hash, secret)
		}
	}
	for _, cost := range []string{"1", "6"} {
		holds(t, c, output(t, mkpasswd, "-m", "yescrypt", "-R", cost, "x"), "x")
	}
}

// TestRefused has hashes that are not even tried, and says what for. None of their text is in the error.
func TestRefused(t *testing.T) {
	salt, key := "c29tZXNhbHQ", "8wQGi/sLhLBhLTFC5eDcnOuY7Ygj14+CJMNxDRlqigw"
	for _, tt := range []struct {
		hash string
		want error
	}{
		{"", ErrScheme}, {"hunter2", ErrScheme}, {"{hunter2}", ErrScheme}, {"{hunter2", ErrHash}, {"{}x", ErrScheme},
		{"{PLAIN}", ErrHash}, {"{PLAIN.rot13}x", ErrScheme}, {"{PLAIN.}x", ErrScheme}, {"{PLAIN.b64}%", ErrHash}, {"{PLAIN.hex}abc", ErrHash},
		{"{SHA}zH9xIdvvCk1Psi4ui9OBlBDDcd", ErrHash}, {"{SSHA}zH9xIdvvCk1Psi4ui9OBlBDDcdA=", ErrHash}, {"{SSHA}====", ErrHash},
		{"{DES-CRYPT}wDaFMPeWLm9sw", ErrScheme}, {"{CRYPT}wDaFMPeWLm9sw", ErrScheme}, {"$2x$05$" + strings.Repeat("a", 53), ErrScheme},
		{"$argon2d$v=19$m=64,t=1,p=1$" + salt + "$" + key, ErrScheme}, {"$md5$x$$y", ErrScheme}, {"$", ErrScheme}, {"$$", ErrScheme},
		{"{CRYPT}$", ErrScheme}, {"$1$", ErrHash}, {"$6$", ErrHash}, {"$y$", ErrHash}, {"$7$", ErrHash}, {"$2y$", ErrHash}, {"$argon2id$", ErrHash},
		{"$1$saltsaltsalt$gRZloawicwW76iU89i0pE1", ErrHash}, {"$1$x$gRZloawicwW76iU89i0pE", ErrHash},
		{"$5$rounds=999$salt$" + strings.Repeat("a", 43), ErrHash}, {"$5$rounds=+5000$salt$" + strings.Repeat("a", 43), ErrHash},
		{"$5$round=5000$salt$" + strings.Repeat("a", 43), ErrHash}, {"$6$salt$" + strings.Repeat("a", 43), ErrHash},
		{"$6$rounds=999999999$salt$" + strings.Repeat("a", 86), ErrCost}, {"$6$rounds=99999999999999999999$salt$" + strings.Repeat("a", 86), ErrCost},
		{"$2y$31$" + strings.Repeat("a", 53), ErrCost}, {"$2y$03$" + strings.Repeat("a", 53), ErrHash}, {"$2y$5$" + strings.Repeat("a", 53), ErrHash},
		{"$y$jzT$salt$" + strings.Repeat("a", 43), ErrCost}, {"$y$jMz$salt$" + strings.Repeat("a", 43), ErrCost}, {"$y$/9T$salt$" + strings.Repeat("a", 43), ErrScheme},
		{"$y$j9T$salt$aa", ErrHash}, {"$7$zzzzzzzzzzzsalt$" + strings.Repeat("a", 43), ErrCost}, {"$7$C..........salt$" + strings.Repeat("a", 43), ErrHash},
		{"$scrypt$ln=62,r=8,p=1$" + salt + "$" + key, ErrCost}, {"$scrypt$ln=17,r=8,p=65$" + salt + "$" + key, ErrCost},
		{"$scrypt$ln=10,r=1000000000,p=1$" + salt + "$" + key, ErrCost}, {"$scrypt$ln=18,r=8,p=5$" + salt + "$" + key, ErrCost},
		{"$scrypt$ln=18,r=64,p=1$" + salt + "$" + key, ErrCost}, {"$scrypt$r=8,p=1$" + salt + "$" + key, ErrHash},
		{"$argon2id$v=19$m=4194304,t=1,p=1$" + salt + "$" + key, ErrCost}, {"$argon2id$v=19$m=65536,t=1000,p=1$" + salt + "$" + key, ErrCost},
		{"$argon2id$v=19$m=65536,t=3,p=255$" + salt + "$" + key, ErrCost}, {"$argon2id$v=16$m=65536,t=3,p=1$" + salt + "$" + key, ErrHash},
		{"$argon2id$v=19$m=8,t=3,p=4$" + salt + "$" + key, ErrHash}, {"$argon2id$v=19$m=65536,t=3$" + salt + "$" + key, ErrHash},
		{"$argon2id$v=19$m=65536,t=3,p=1,k=2$" + salt + "$" + key, ErrHash}, {"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$AA", ErrHash},
		{"$pbkdf2-sha256$2000000000$" + salt + "$" + strings.ReplaceAll(key, "+", "."), ErrCost}, {"$pbkdf2$100$" + salt + "$AA", ErrHash},
		{"$pbkdf2$4000000$" + salt + "$" + strings.ReplaceAll(key, "+", "."), ErrCost}, // two blocks
		{"{PBKDF2}$1$salt$1000000000$9042b63eb10f3c1e2e62b412b22b1656d2580342", ErrCost}, {"{PBKDF2}$1$salt$0$9042b63eb10f3c1e2e62b412b22b1656d2580342", ErrHash},
		{"{PBKDF2}$1$salt$5000$9042", ErrHash}, {"{PBKDF2}$2$salt$5000$9042b63eb10f3c1e2e62b412b22b1656d2580342", ErrHash},
		{"{SCRAM-SHA-1}4096,CwG4iaxgNPZqixiY4AtdNQ==,2GHVtBW6MUgxR+9Rb7RrKqgsLPw=", ErrHash},
		{"{SCRAM-SHA-1}2147483647,CwG4iaxgNPZqixiY4AtdNQ==,2GHVtBW6MUgxR+9Rb7RrKqgsLPw=,skkyE4AYkyl//UfSRvHCfK59mIs=", ErrCost},
		{"{SCRAM-SHA-256}4096,CwG4iaxgNPZqixiY4AtdNQ==,2GHVtBW6MUgxR+9Rb7RrKqgsLPw=,skkyE4AYkyl//UfSRvHCfK59mIs=", ErrHash},
		{"{PLAIN}" + strings.Repeat("x", maxHash), ErrHash},
	} {
		err := New(1).Check(t.Context(), home, tt.hash, []byte("x"))
		if !errors.Is(err, tt.want) {
			t.Errorf("Check(%.80q) = %v, want %v", tt.hash, err, tt.want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "9042") {
			t.Errorf("Check(%.80q) says %v", tt.hash, err)
		}
	}
}

// An account that was shut lets nobody in, and is no fault of the source either.
func TestLocked(t *testing.T) {
	for _, hash := range []string{"{CRYPT}!", "{CRYPT}*", "{CRYPT}!$1$DHEmEFdM$gRZloawicwW76iU89i0pE1", "{SHA512-CRYPT}!!"} {
		for _, secret := range []string{"pass", "!", "*", ""} {
			if err := New(1).Check(t.Context(), home, hash, []byte(secret)); !errors.Is(err, ErrWrong) {
				t.Errorf("Check(%q, %q) = %v, want ErrWrong", hash, secret, err)
			}
		}
	}
}

// A longer secret would multiply the work of a hash, and it is whoever logs in that chooses it.
func TestLongSecret(t *testing.T) {
	long := strings.Repeat("x", maxSecret)
	c := New(1)
	if err := c.Check(t.Context(), home, "{PLAIN}"+long, []byte(long)); err != nil {
		t.Error(err)
	}
	if err := c.Check(t.Context(), home, "{PLAIN}"+long+"x", []byte(long+"x")); !errors.Is(err, ErrWrong) {
		t.Errorf("one octet more: %v", err)
	}
}

// TestFlood has many more checks than workers. No more run at once than there are workers, or than memory allows; all have
// their turn; whoever's time is up leaves, and leaves nothing behind.
func TestFlood(t *testing.T) {
	for _, tt := range []struct {
		workers int
		w       work
		want    int
	}{
		{3, work{threads: 1}, 3},
		{8, work{threads: 4}, 2},
		{2, work{threads: 64}, 1},
		{64, work{threads: 1, memory: maxMemory}, 16},
		{2, work{threads: 1, memory: maxMemory}, 1},
	} {
		t.Run(fmt.Sprintf("%d workers, %+d, %d KiB", tt.workers, tt.w.threads, tt.w.memory), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(tt.workers)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var running atomic.Int64
				done, gone := make(chan struct{}), 0
				left := make(chan error)
				for range 100 {
					go func() {
						release, err := c.acquire(ctx, home, tt.w)
						if err != nil {
							left <- err
							return
						}
						running.Add(1)
						<-done
						release()
						left <- nil
					}()
				}
				for round := 1; ; round++ {
					synctest.Wait()
					if got := running.Swap(0); got != int64(tt.want) {
						t.Fatalf("round %d: %d begin to run, want %d", round, got, tt.want)
					}
					if round == 3 {
						break
					}
					for range tt.want {
						done <- struct{}{}
						if err := <-left; err != nil {
							t.Error(err)
						}
						gone++
					}
				}
				cancel()
				for range 100 - gone - tt.want {
					if err := <-left; !errors.Is(err, context.Canceled) {
						t.Errorf("one who waited: %v", err)
					}
				}
				for range tt.want {
					done <- struct{}{}
					if err := <-left; err != nil {
						t.Error(err)
					}
				}
				if !c.slots.TryAcquire(c.workers) || !c.memory.TryAcquire(max(c.workers*usualMemory, maxMemory)) {
					t.Error("something is still taken when all have gone")
				}
			})
		})
	}
}

// Check itself takes its turn, for hashes that are work and for those alone.
func TestCheckWaits(t *testing.T) {
	c := New(1)
	release, err := c.acquire(t.Context(), home, work{threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	const hash = "$1$DHEmEFdM$gRZloawicwW76iU89i0pE1"
	if err := c.Check(ctx, home, hash, []byte("pass")); !errors.Is(err, context.Canceled) || errors.Is(err, ErrWrong) {
		t.Errorf("no worker is free: %v", err)
	}
	if err := c.Check(ctx, home, "{PLAIN}pass", []byte("pass")); err != nil {
		t.Errorf("what is no work waits: %v", err)
	}
	release()
	if err := c.Check(t.Context(), home, hash, []byte("pass")); err != nil {
		t.Error(err)
	}
}

// Who guesses from one network, however fast, does not keep others from their turn.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(2)
		ctx, cancel := context.WithCancel(t.Context())
		turns := make(chan netip.Prefix)
		var all sync.WaitGroup
		queue := func(from netip.Prefix) {
			all.Go(func() {
				release, err := c.acquire(ctx, from, work{threads: 1})
				if err != nil {
					return
				}
				defer release()
				select {
				case turns <- from:
				case <-ctx.Done():
				}
			})
			synctest.Wait()
		}
		for range 100 {
			queue(home)
		}
		other := netip.MustParsePrefix("192.0.2.7/32")
		queue(other)
		for range 2 { // those that ran when it came
			if from := <-turns; from != home {
				t.Fatalf("the turn is %s's", from)
			}
			synctest.Wait()
		}
		if a, b := <-turns, <-turns; a != other && b != other {
			t.Errorf("the next are %s and %s, and %s still waits", a, b, other)
		}
		cancel()
		all.Wait()
		if len(c.shares.by) > 0 || !c.slots.TryAcquire(c.workers) {
			t.Errorf("%d shares are left, or workers are taken", len(c.shares.by))
		}
	})
}

func TestNewByItself(t *testing.T) {
	if c := New(0); c.workers < 1 {
		t.Errorf("%d workers", c.workers)
	}
}

// FuzzCheck looks for hashes that break the decoders, or that ask for more than they may. Work that is slow is only weighed.
func FuzzCheck(f *testing.F) {
	for _, k := range known {
		f.Add(k.hash, k.secret)
	}
	f.Add("$7$/.........../$"+strings.Repeat("a", 43), "x")
	f.Add("$y$j..$.$"+strings.Repeat("a", 43), "x")
	f.Add("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$8wQGi/sLhLBhLTFC5eDcnOuY7Ygj14+CJMNxDRlqigw", "x")
	c := New(1)
	f.Fuzz(func(t *testing.T, hash, secret string) {
		w, err := parse(hash)
		if err != nil {
			if !errors.Is(err, ErrScheme) && !errors.Is(err, ErrHash) && !errors.Is(err, ErrCost) {
				t.Errorf("%v is none of the errors", err)
			}
			return
		}
		if w.memory > maxMemory || w.threads > maxParallel || w.threads < 0 || w.memory < 0 {
			t.Fatalf("takes %d KiB and %d threads", w.memory, w.threads)
		}
		if w.memory > 1024 || len(secret) > maxSecret || slow(hash) {
			return
		}
		err = c.Check(t.Context(), home, hash, []byte(secret))
		if err != nil && !errors.Is(err, ErrWrong) || secret == "" && err == nil {
			t.Errorf("Check = %v", err)
		}
	})
}

// slow tells a hash that may have many rounds: one with a number of five digits, or bcrypt's cost of two.
func slow(hash string) bool {
	digits := 0
	for _, r := range hash {
		if r < '0' || r > '9' {
			digits = 0
		} else if digits++; digits > 4 {
			return true
		}
	}
	return strings.Contains(hash, "$2") && !strings.Contains(hash, "$05$") || strings.Contains(strings.ToLower(hash), ".b64}") ||
		strings.Contains(strings.ToLower(hash), ".hex}") || strings.Contains(strings.ToLower(hash), ".base64}") || strings.Contains(hash, "t=")
}

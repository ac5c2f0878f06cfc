package backend

import "testing"

// TestTexts holds what a backend's own words make of its refusals, and what they cannot.
func TestTexts(t *testing.T) {
	const user = "S: +OK\nC: USER alice@example.org\n"
	const pass = user + "S: +OK\nC: PASS secret\n"
	for lines, want := range map[string]Kind{
		pass + "S: -ERR Postfach ist GESPERRT durch andere Sitzung": InUse,
		pass + "S: -ERR kommen Sie morgen wieder":                   Temporary,
		pass + "S: -ERR Konto gekuendigt":                           Permanent,
		pass + "S: -ERR mailbox in use or wrong pin":                WrongPassword, // wrong_text counts first
		pass + "S: -ERR [AUTH] gesperrt":                            WrongPassword, // a code counts more than words
		pass + "S: -ERR falsch":                                     WrongPassword,
		pass + "S: -ERR nobody is called alice@example.org":         WrongPassword, // the name cannot decide
		pass + "S: -ERR not this: secret":                           WrongPassword, // nor can the password
		user + "S: -ERR kommen Sie morgen wieder":                   Temporary,
		user + "S: -ERR gesperrt":                                   WrongPassword, // no password was seen
		user + "S: -ERR gekuendigt":                                 WrongPassword,
	} {
		c := config(script(lines).listen(t))
		c.InUseText = []string{"Gesperrt", "ALICE", "secret"}
		c.TemporaryText, c.DisabledText, c.WrongText = []string{"morgen wieder"}, []string{" gekuendigt "}, []string{"wrong PIN"}
		_, err := login(t, pool(t, c))
		refused(t, err, want)
	}
}

package backend

import (
	"strings"

	"github.com/popgate/popgate/proxy/pop3"
)

// texts are a backend's own words in refusals without a code, in lower case.
type texts struct{ wrong, inUse, temporary, disabled []string }

func newTexts(c *Config) texts {
	lowered := func(words []string) []string {
		all := make([]string, len(words))
		for i, w := range words {
			all[i] = strings.ToLower(strings.TrimSpace(w))
		}
		return all
	}
	return texts{lowered(c.WrongText), lowered(c.InUseText), lowered(c.TemporaryText), lowered(c.DisabledText)}
}

// kind is what text means by the backend's own words, and whether it has any.
func (t *texts) kind(text string) (Kind, bool) {
	switch {
	case containsAny(text, t.wrong):
		return WrongPassword, true
	case containsAny(text, t.inUse):
		return InUse, true
	case containsAny(text, t.temporary):
		return Temporary, true
	case containsAny(text, t.disabled):
		return Permanent, true
	}
	return 0, false
}

// kindOfPass is what r, a -ERR to the password, means at this backend. Neither the names that the client chose nor a
// password that the server repeats can decide.
func (a *attempt) kindOfPass(r pop3.Reply) Kind {
	if _, ok := coded(r.Code); !ok {
		text := withoutSecret(a.bare(r.Text), a.secret)
		if kind, ok := a.pool.texts.kind(text); ok {
			return kind
		}
	}
	if a.as.Authzid != "" {
		r.Text = bare(r.Text, a.as.Authzid)
	}
	return refusedPass(r, a.as.User, a.secret)
}

// kindOfUser is the same of one to USER. No password was seen, so that what is true of one account only is a wrong
// password, as refusedUser has it.
func (a *attempt) kindOfUser(r pop3.Reply) Kind {
	if _, ok := coded(r.Code); !ok {
		if kind, ok := a.pool.texts.kind(a.bare(r.Text)); ok && kind == Temporary {
			return Temporary
		} else if ok {
			return WrongPassword
		}
	}
	return refusedUser(r, a.as.User, a.member.server.willing.Load())
}

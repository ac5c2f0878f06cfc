package backend

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/popgate/popgate/proxy/pop3"
)

const (
	slowGreeting = 1000.0 // milliseconds
	slowRefusal  = 10000.0
	soonExpired  = 14 * 24 * time.Hour
)

// found adds a finding that is as it should be.
func (x *exam) found(item, text string) { x.odd(LevelOK, item, text, "") }

// odd adds a finding.
func (x *exam) odd(l Level, item, text, why string) {
	x.Findings = append(x.Findings, Finding{Item: item, Found: text, Level: l, Why: why})
}

// change adds a key to write, the first reason for it.
func (x *exam) change(key, value, reason string) {
	if !slices.ContainsFunc(x.Changes, func(c Change) bool { return c.Key == key }) {
		x.Changes = append(x.Changes, Change{key, value, reason})
	}
}

// judge makes findings and changes of the facts.
func (x *exam) judge() {
	f := &x.Facts
	if len(f.Connection.Addresses) == 0 {
		x.odd(LevelBad, "address", "none", f.Error)
		return
	}
	x.judgeAddress()
	if f.Error != "" && f.Greeting.Text == "" {
		x.odd(LevelBad, "greeting", "none", f.Error)
		return
	}
	x.judgeGreeting()
	x.judgeCapabilities()
	x.judgeMechanisms()
	x.judgePipelining()
	x.judgePlaintext()
	x.judgeXClient()
	x.judgeHeaders()
	x.judgeTLS()
	x.judgeLogin()
	x.judgeWrong()
	if f.Error != "" {
		x.odd(LevelOdd, "examination", "not finished", f.Error+"; the rest is not known")
	}
}

func (x *exam) judgeAddress() {
	f := &x.Facts.Connection
	all := make([]string, len(f.Addresses))
	for i, ip := range f.Addresses {
		all[i] = ip.String()
	}
	text := strings.Join(all, " ")
	if f.Took > 0 {
		text += fmt.Sprintf("   connected in %s", inWords(f.Took))
	}
	if f.SameHost {
		text += "   (this machine; it may treat others otherwise)"
	}
	x.found("address", text)
}

// inWords writes milliseconds.
func inWords(ms float64) string {
	if ms < 0.1 {
		return "0.1 ms"
	}
	if ms >= 1000 {
		return fmt.Sprintf("%.1f s", ms/1000)
	}
	return fmt.Sprintf("%.1f ms", ms)
}

func (x *exam) judgeGreeting() {
	f := &x.Facts.Greeting
	text := fmt.Sprintf("%s   in %s", f.Text, inWords(f.Took))
	if f.Took >= slowGreeting {
		x.odd(LevelOdd, "greeting", text, "every login waits that long; servers that look up the client's name do this: give popgate's address a name in the DNS, or turn it off there")
	} else {
		x.found("greeting", text)
	}
	stamp := "no timestamp"
	if f.APOP {
		stamp = "timestamp in the greeting (popgate logs in by USER and PASS)"
	}
	x.found("APOP", stamp)
}

func (x *exam) judgeCapabilities() {
	f := &x.Facts.Capabilities
	caps := f.known()
	switch f.Answer {
	case answerTaken:
		text := strings.Join(caps, ", ")
		if !caps.Has("UIDL") || !caps.Has("TOP") {
			x.odd(LevelOdd, "CAPA", text, "many clients cannot leave mail on a server without UIDL, or look at it first without TOP")
		} else {
			x.found("CAPA", text)
		}
		if over := f.BehindSTLS; len(over) > 0 {
			x.found("  over TLS", difference(f.List, over))
		}
	case answerRefused:
		x.odd(LevelOdd, "CAPA", "not known", "the server is of the time before 1998; popgate takes TOP and UIDL for granted there, and nothing else")
	case "":
		x.found("CAPA", "not asked")
	default:
		x.odd(LevelOdd, "CAPA", how(f.Answer), "popgate's checks would wait for it and count as failed")
		if x.pool.config.Check.Type == CheckCapa {
			x.change("check", "{type: greeting}", "the server does not answer CAPA as it should")
		}
	}
	var langs []string
	for _, c := range []string{"UTF8", "LANG"} {
		if caps.Has(c) {
			langs = append(langs, c)
		}
	}
	if f.Answer == answerTaken {
		x.found("UTF8, LANG", orNone(strings.Join(langs, ", ")))
	}
}

// known is what the server says it can do, in order.
func (f *CapabilityFacts) known() pop3.Capabilities {
	caps := slices.Clone(f.List)
	slices.Sort(caps)
	return slices.Compact(caps)
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// how writes an answer in words.
func how(answer string) string {
	switch answer {
	case answerTaken:
		return "works"
	case answerRefused:
		return "refused"
	case answerSilent:
		return "no answer"
	case answerClosed:
		return "the server closes the connection"
	case answerGarbage:
		return "an answer that is not POP3, or does not end"
	case answerCommand:
		return "not understood: taken for a command"
	case "":
		return "not asked"
	}
	return answer
}

// difference says what one list has and another has not.
func difference(before, after pop3.Capabilities) string {
	var parts []string
	for _, c := range after {
		if !slices.Contains(before, c) {
			parts = append(parts, "with "+c)
		}
	}
	for _, c := range before {
		if !slices.Contains(after, c) {
			parts = append(parts, "without "+c)
		}
	}
	if len(parts) == 0 {
		return "the same"
	}
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), ", ")
}

func (x *exam) judgeMechanisms() {
	f, caps := &x.Facts.SASL, &x.Facts.Capabilities
	listed, _ := caps.List.Args("SASL")
	text := "CAPA: " + orNone(strings.Join(listed, " "))
	if over, ok := caps.BehindSTLS.Args("SASL"); ok && !slices.Equal(listed, over) {
		text += ", over TLS: " + orNone(strings.Join(over, " "))
	}
	switch f.Answer {
	case answerTaken:
		text += "; AUTH alone: " + orNone(strings.Join(f.Mechanisms, " "))
	case answerRefused:
		text += "; AUTH alone: refused, as it may be"
	case "":
	default:
		x.odd(LevelOdd, "SASL", text+"; AUTH alone: "+how(f.Answer), "popgate does not say it, old clients that talk to the server themselves may")
		return
	}
	x.found("SASL", text)
}

func (x *exam) judgePipelining() {
	f := &x.Facts
	advertised := f.Capabilities.List.Has("PIPELINING") || f.Capabilities.BehindSTLS.Has("PIPELINING")
	switch {
	case f.Pipelining == "":
		x.found("pipelining", "not tried")
	case advertised && f.Pipelining == answerTaken:
		x.found("pipelining", "offered, and works")
	case advertised:
		x.odd(LevelBad, "pipelining", "offered, and does not work: "+how(f.Pipelining),
			"popgate tells clients what its servers offer: some will send commands together and wait for ever. Turn the offer off there")
	case f.Pipelining == answerTaken:
		x.found("pipelining", "not offered; works all the same")
	default:
		x.found("pipelining", "not offered; does not work")
	}
}

func (x *exam) judgeXClient() {
	f, c := &x.Facts.XClient, &x.pool.config
	switch {
	case f.Offered && f.Answer == answerRefused:
		x.odd(LevelBad, "XCLIENT", "offered, and refused", "nobody can log in with client_info: xclient")
		if c.ClientInfo == ClientXClient {
			x.change("client_info", ClientNone, "the server refuses XCLIENT")
		}
	case f.Offered && c.ClientInfo == ClientXClient:
		x.found("XCLIENT", "offered in the greeting, and used")
	case f.Offered:
		x.odd(LevelOdd, "XCLIENT", "offered in the greeting", "the server trusts popgate's address and would learn who the client is")
		if c.ClientInfo == ClientNone {
			x.change("client_info", ClientXClient, "the server offers XCLIENT, and would know the clients' addresses")
		}
	case c.ClientInfo == ClientXClient:
		x.odd(LevelBad, "XCLIENT", "not offered",
			"the server's logs and limits see popgate in place of the clients: put popgate's address into Dovecot's login_trusted_networks there")
	default:
		x.found("XCLIENT", "not offered")
	}
}

func (x *exam) judgeWrong() {
	w := x.Facts.Wrong
	switch {
	case w == nil:
	case w.Accepted:
		x.odd(LevelBad, "wrong password", "taken!", "the server lets "+x.opts.WrongAs+" in with any password, it seems")
	case !w.Asked:
		x.odd(LevelBad, "wrong password", w.Text, "the login did not come to the password ("+w.Kind+")")
	case w.Kind != WrongPassword.String():
		x.odd(LevelBad, "wrong password", fmt.Sprintf("%s   in %s", w.Text, inWords(w.Took)),
			"popgate takes this for: "+w.Kind+". If these are the server's words for a wrong password, put some of them into wrong_text")
	case w.Took >= slowRefusal:
		x.odd(LevelOdd, "wrong password", fmt.Sprintf("%s   in %s", w.Text, inWords(w.Took)),
			"guessers hold a place at the server for so long: mind max_sessions")
	default:
		x.found("wrong password", fmt.Sprintf("%s   in %s", w.Text, inWords(w.Took)))
	}
}

func (x *exam) judgeLogin() {
	l := x.Facts.Login
	if l == nil {
		return
	}
	if l.Error != "" {
		x.odd(LevelBad, "login", "failed", l.Error)
		return
	}
	x.found("login", fmt.Sprintf("works, in %s; %s", inWords(l.Took), plural(l.Messages, "message")))
	for _, one := range []struct{ item, answer, why string }{
		{"  STAT", l.STAT, "clients begin with it"},
		{"  UIDL", l.UIDL, "clients that leave mail on the server load all of it again and again, or lose some"},
		{"  TOP", l.TOP, "clients that look at mail first cannot"},
	} {
		switch one.answer {
		case answerTaken:
			x.found(one.item, how(one.answer))
		case "":
		default:
			x.odd(LevelBad, one.item, how(one.answer), one.why)
		}
	}
	if len(l.Capabilities) > 0 {
		before := x.Facts.Capabilities.List
		if len(x.Facts.Capabilities.BehindSTLS) > 0 && x.pool.config.TLS == TLSStart {
			before = x.Facts.Capabilities.BehindSTLS
		}
		x.found("  CAPA then", difference(before, l.Capabilities))
	}
}

package backend

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/proxy/pop3"
)

// maxDoctorLines bounds how much of a list of messages is read.
const maxDoctorLines = 100000

// talk asks for the capabilities and mechanisms, and then for two things in one write.
func (x *exam) talk(ctx context.Context) {
	v, err := x.open(ctx, x.way, x.opts.Timeout)
	if err != nil {
		x.Facts.Capabilities.Answer = answerClosed
		return
	}
	defer v.close()
	f := &x.Facts
	f.Capabilities.List, f.Capabilities.Answer = v.capa(ctx)
	if !answered(f.Capabilities.Answer) {
		return
	}
	x.mechanisms(ctx, v)
	if !answered(f.SASL.Answer) {
		return
	}
	if err := v.send(ctx, "CAPA\r\nQUIT\r\n"); err != nil {
		f.Pipelining = outcome(err)
		return
	}
	r, how := v.answer(ctx)
	if how == answerTaken && r.OK {
		_, how = v.list(ctx, maxCapabilities)
	}
	if answered(how) {
		_, how = v.answer(ctx)
	}
	if f.Pipelining = how; how == answerRefused {
		f.Pipelining = answerTaken // QUIT was answered: that is all that matters
	}
}

// mechanisms asks by AUTH alone, as clients did before CAPA said it.
func (x *exam) mechanisms(ctx context.Context, v *visit) {
	f := &x.Facts.SASL
	if err := v.send(ctx, "AUTH\r\n"); err != nil {
		f.Answer = outcome(err)
		return
	}
	line, err := v.next(ctx)
	if err != nil {
		f.Answer = outcome(err)
		return
	}
	r, err := pop3.ParseReply([]byte(line))
	switch {
	case err == nil && !r.OK:
		f.Answer = answerRefused
	case err == nil:
		lines, how := v.list(ctx, maxCapabilities)
		f.Answer = how
		for _, m := range lines {
			f.Mechanisms = append(f.Mechanisms, strings.ToUpper(pop3.ParseCapability([]byte(m))))
		}
	case strings.HasPrefix(line, "+"): // a challenge, to no mechanism
		if _, f.Answer = v.ask(ctx, "*"); f.Answer == answerTaken {
			f.Answer = answerGarbage
		}
	default:
		f.Answer = answerGarbage
	}
}

// plaintext says a user's name without TLS, as the client that popgate would tell the server of. No password follows.
func (x *exam) plaintext(ctx context.Context) {
	if x.way.tls {
		return
	}
	f := &x.Facts
	v, err := x.open(ctx, x.way, x.opts.Timeout)
	if err != nil {
		f.Plaintext.Answer = answerClosed
		return
	}
	defer v.close()
	if f.XClient.Offered {
		_, f.XClient.Answer = v.ask(ctx, strings.TrimSuffix(string(appendXClient(nil, stranger())), "\r\n"))
		if f.XClient.Answer != answerTaken {
			return
		}
	}
	r, how := v.ask(ctx, "USER "+doctorName)
	f.Plaintext = PlaintextFacts{how, replyText(r)}
	if answered(how) {
		v.quit(ctx)
	}
}

// wantsTLS says that the server wants TLS before a password.
func (f *PlaintextFacts) wantsTLS() bool {
	return f.Answer == answerRefused && wantsTLS(strings.ToLower(f.Text))
}

// startTLS tries STLS, offered or not.
func (x *exam) startTLS(ctx context.Context) {
	if x.way.tls {
		return
	}
	f := &x.Facts.TLS
	v, err := x.open(ctx, x.way, x.opts.Timeout)
	if err != nil {
		f.STLS, f.STLSText = answerClosed, err.Error()
		return
	}
	defer v.close()
	r, how := v.ask(ctx, "STLS")
	f.STLS, f.STLSText = how, replyText(r)
	if how != answerTaken {
		if how == answerRefused {
			v.quit(ctx)
		}
		return
	}
	v.lines.Release()
	if err := v.handshake(ctx, x.lenient()); err != nil {
		f.STLS, f.STLSText = answerGarbage, "handshake: "+err.Error()
		return
	}
	v.lines = pop3.NewReader(v.conn)
	x.shown(v.state)
	x.Facts.Capabilities.BehindSTLS, _ = v.capa(ctx)
	v.quit(ctx)
}

// inject sends a command behind STLS in the same write. A server that answers it over TLS has taken what anybody on the
// way could have put there.
func (x *exam) inject(ctx context.Context) {
	f := &x.Facts.TLS
	if f.STLS != answerTaken {
		return
	}
	v, err := x.open(ctx, x.way, x.opts.Timeout)
	if err != nil {
		return
	}
	defer v.close()
	if v.send(ctx, "STLS\r\nCAPA\r\n") != nil {
		return
	}
	if _, how := v.answer(ctx); how != answerTaken {
		return
	}
	v.lines.Release()
	if v.handshake(ctx, x.lenient()) != nil {
		v.lines = nil
		return // it took the command for a part of TLS: nothing was taken
	}
	v.lines = pop3.NewReader(v.conn)
	// One answer belongs to QUIT. Where there are more, the first was to CAPA.
	if v.send(ctx, "QUIT\r\n") != nil {
		return
	}
	f.Injected = v.rest(ctx) > 1
}

// rest counts the lines that are left until the server closes.
func (v *visit) rest(ctx context.Context) int {
	n := 0
	for range maxCapabilities {
		if _, err := v.next(ctx); err != nil {
			break
		}
		n++
	}
	return n
}

// port995 looks whether the host has TLS at the port for it.
func (x *exam) port995(ctx context.Context) {
	if x.member.address.port != 110 {
		return
	}
	a := x.member.address
	a.port = 995
	if a.ip.IsValid() {
		a, _ = parseAddress(a.host, TLSImplicit) // it was parsed before
	}
	w := x.way
	w.tls = true
	if v, err := x.openAt(ctx, a, w, min(x.opts.Timeout, doctorGuess)); err == nil {
		x.Facts.TLS.Port995 = true
		v.quit(ctx)
	}
}

// headers tries to begin in the ways that are not the server's.
func (x *exam) headers(ctx context.Context) {
	for _, one := range []struct {
		header string
		to     *string
	}{{"", &x.Facts.Proxy.Without}, {ClientProxyV2, &x.Facts.Proxy.V2}, {ClientProxyV1, &x.Facts.Proxy.V1}} {
		if one.header == x.way.header {
			*one.to = answerTaken
			continue
		}
		w := way{tls: x.way.tls, header: one.header}
		timeout := min(x.opts.Timeout, doctorGuess)
		if one.header == "" {
			timeout = x.opts.Timeout // Dovecot waits for three seconds before it closes
		}
		v, err := x.open(ctx, w, timeout)
		if err != nil {
			*one.to = headerOutcome(err)
			continue
		}
		if *one.to = x.header(ctx, v); one.header == "" && *one.to != answerTaken {
			*one.to = answerGarbage
		}
	}
}

func headerOutcome(err error) string {
	var f *visitError
	if errors.As(err, &f) && (f.refused || f.step == stepTLS) {
		return answerCommand // it answered, with something else than its greeting
	}
	return outcome(err)
}

// header says whether the header that v began with was taken as one: then there is one answer to each of the commands
// that follow, and no more. It uses v up.
func (x *exam) header(ctx context.Context, v *visit) string {
	defer v.close()
	r, how := v.ask(ctx, "CAPA")
	switch {
	case how == answerTaken && r.OK:
		// The header of version 2 has a QUIT in it, whose +OK has no list behind it.
		if _, how = v.list(ctx, maxCapabilities); how != answerTaken {
			return answerCommand
		}
	case how != answerRefused:
		return answerCommand
	}
	if v.send(ctx, "QUIT\r\n") != nil || v.rest(ctx) != 1 {
		return answerCommand
	}
	return answerTaken
}

// attempt prepares a login in the configured way, as popgate's own.
func (x *exam) attempt(as *auth.BackendLogin, secret []byte) *attempt {
	req := stranger()
	if x.local.IsValid() { // popgate itself is the client: the account may be for its network alone
		req.Client.Addr, req.Client.Local = x.local, x.local
	}
	req.Login = *as
	return &attempt{pool: x.pool, member: x.member, req: req, as: as, secret: secret}
}

// wrong tries one wrong password, and takes the time of the answer.
func (x *exam) wrong(ctx context.Context) {
	if x.opts.WrongAs == "" {
		return
	}
	w := &WrongFacts{}
	x.Facts.Wrong = w
	as := &auth.BackendLogin{User: x.opts.WrongAs}
	a := x.attempt(as, []byte("popgate-doctor-"+rand.Text()))
	defer a.close()
	steps := x.pool.planOf(x.member).login
	last := len(steps) - 1
	err := a.run(ctx, steps[:last])
	if err == nil {
		w.Asked = true
		began := time.Now()
		err = a.run(ctx, steps[last:])
		w.Took = milliseconds(time.Since(began))
	}
	if w.Accepted = err == nil; err == nil {
		_ = a.quit(ctx)
		return
	}
	w.Kind = err.Kind.String()
	if w.Text = replyText(err.Reply); w.Text == "" {
		w.Text = err.Error()
	}
}

// login logs in in the configured way, certificate included, and looks around. Nothing is changed in the mailbox.
func (x *exam) login(ctx context.Context) {
	if x.opts.Login == nil {
		return
	}
	f := &LoginFacts{}
	x.Facts.Login = f
	began := time.Now()
	a := x.attempt(x.opts.Login, reveal(x.opts.Login))
	conn, err := a.login(ctx)
	f.Took = milliseconds(time.Since(began))
	if err != nil {
		f.Error = err.Error()
		return
	}
	conn.place.Store(nil) // it was let in by no queue
	v := &visit{raw: a.raw, conn: conn.Conn, lines: pop3.NewReader(conn.Conn), timeout: x.opts.Timeout}
	v.stop = context.AfterFunc(ctx, func() { _ = v.raw.SetDeadline(past) })
	defer v.close()
	f.look(ctx, v)
}

// look asks what clients ask first. It goes on as long as the answers are answers.
func (f *LoginFacts) look(ctx context.Context, v *visit) {
	r, how := v.ask(ctx, "STAT")
	f.STAT = how
	if how != answerTaken {
		return
	}
	count, _, _ := strings.Cut(r.Text, " ")
	if n, err := strconv.Atoi(count); err != nil {
		f.STAT = answerGarbage
	} else {
		f.Messages = n
	}
	if _, f.UIDL = v.ask(ctx, "UIDL"); f.UIDL == answerTaken {
		var ids []string
		if ids, f.UIDL = v.list(ctx, maxDoctorLines); f.UIDL == answerTaken {
			f.UIDL = distinct(ids, f.Messages)
		}
	}
	if f.Messages > 0 && answered(f.UIDL) {
		if _, f.TOP = v.ask(ctx, "TOP 1 0"); f.TOP == answerTaken {
			_, f.TOP = v.list(ctx, maxDoctorLines)
		}
		if !answered(f.TOP) {
			return
		}
	}
	f.Capabilities, how = v.capa(ctx)
	if answered(how) {
		v.quit(ctx)
	}
}

// distinct says taken where lines are the ids of n messages, no two alike, else what is wrong with them.
func distinct(lines []string, n int) string {
	ids := make([]string, 0, len(lines))
	for _, line := range lines {
		if _, id, ok := strings.Cut(line, " "); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	switch total := len(ids); {
	case total != n:
		return fmt.Sprintf("lists %d of %d messages", total, n)
	case len(slices.Compact(ids)) != n:
		return "gives several messages the same id"
	}
	return answerTaken
}

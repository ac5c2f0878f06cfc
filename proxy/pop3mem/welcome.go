package pop3mem

import (
	"strings"
	"time"
)

// Welcome makes three messages for a new mailbox: a plain one, one in UTF-8 with dots at the start of lines, and one
// in HTML with an attachment. user is the name in their To field.
func Welcome(user string) [][]byte {
	address := user
	if !strings.Contains(address, "@") {
		address += "@localhost"
	}
	fill := strings.NewReplacer("\n", "\r\n", "{to}", address, "{user}", user, "{date}", time.Now().Format(time.RFC1123Z))
	var messages [][]byte
	for _, text := range []string{plainMail, dottedMail, attachedMail} {
		messages = append(messages, []byte(fill.Replace(text)))
	}
	return messages
}

const plainMail = `From: popgate <postmaster@localhost>
To: {to}
Subject: Welcome to popgate
Date: {date}
Message-ID: <welcome.1.{to}>
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii
Content-Transfer-Encoding: 7bit

Hello {user},

if you can read this, your mail program spoke TLS to popgate, and popgate
spoke plain POP3 to a server that knows nothing of TLS. Nothing in this
message was changed on its way.

-- 
popgate
`

const dottedMail = `From: popgate <postmaster@localhost>
To: {to}
Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe_=E2=80=93_and_dots?=
Date: {date}
Message-ID: <welcome.2.{to}>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Zażółć gęślą jaźń. Ça va? Größe, naïveté, 日本語, Ελληνικά.

The next lines begin with dots, which POP3 doubles on the way:
.
..
.hidden
... and this one ends in two blanks  

.
That was not the end.
`

const attachedMail = `From: popgate <postmaster@localhost>
To: {to}
Subject: With an attachment
Date: {date}
Message-ID: <welcome.3.{to}>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="=-popgate-mixed"

This is a message in several parts.

--=-popgate-mixed
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable

<!DOCTYPE html>
<html lang=3D"en"><body>
<h1>Hello {user}</h1>
<p>This part is <em>HTML</em>. The next one is a picture of one pixel.</p>
</body></html>

--=-popgate-mixed
Content-Type: image/png; name="pixel.png"
Content-Disposition: attachment; filename="pixel.png"
Content-Transfer-Encoding: base64

iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNQSFgAAAHEASFiX4r9
AAAAAElFTkSuQmCC

--=-popgate-mixed--
`

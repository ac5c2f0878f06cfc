package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"github.com/popgate/popgate/auth"
)

// The PROXY protocol's fixed parts: its specification 3.4, sections 2.1 and 2.2.
const (
	maxHeaderV1   = 107
	maxHeaderV2   = 4096
	fixedHeaderV2 = 16
	signatureV2   = "\r\n\r\n\x00\r\nQUIT\n"
	signatureV1   = "PROXY "
)

var (
	errNoHeader    = errors.New("no PROXY header")
	errBadChecksum = errors.New("PROXY header with a wrong CRC32C")
)

// readHeader takes the PROXY header off the raw connection, before TLS, within the deadline, and believes it. What
// was read behind it goes first to whoever reads next.
func (s *session) readHeader(deadline time.Time) error {
	if err := s.raw.SetReadDeadline(deadline); err != nil {
		return err
	}
	if s.gw.isClosing() { // after arming: the wake may have come just before
		return errShutdown
	}
	header, rest, err := takeHeader(s.raw.Conn)
	if err != nil {
		return err
	}
	s.raw.early = rest
	return s.believe(header)
}

// takeHeader reads until a PROXY header is complete, in as many segments as it comes in. It returns what it read
// behind the header too.
func takeHeader(conn io.Reader) (header, rest []byte, err error) {
	buf := make([]byte, 0, 256) // a version 1 header, or a version 2 one with a few TLVs
	for {
		size, err := headerSize(buf)
		if err != nil {
			return nil, nil, err
		}
		if size > 0 && len(buf) >= size {
			return buf[:size], buf[size:], nil
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, maxHeaderV2), buf...)
		}
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil && n == 0 {
			return nil, nil, fmt.Errorf("read PROXY header: %w", err)
		}
	}
}

// headerSize is the length of the header that buf begins with, 0 while that cannot be told.
func headerSize(buf []byte) (int, error) {
	switch {
	case len(buf) >= fixedHeaderV2 && string(buf[:len(signatureV2)]) == signatureV2:
		size := fixedHeaderV2 + int(binary.BigEndian.Uint16(buf[14:16]))
		if size > maxHeaderV2 {
			return 0, fmt.Errorf("PROXY header of %d octets, at most %d are taken", size, maxHeaderV2)
		}
		return size, nil
	case strings.HasPrefix(signatureV2, string(buf[:min(len(buf), len(signatureV2))])):
		return 0, nil
	case bytes.HasPrefix(buf, []byte(signatureV1)):
		if i := bytes.IndexByte(buf[:min(len(buf), maxHeaderV1)], '\n'); i >= 0 {
			return i + 1, nil
		}
		if len(buf) >= maxHeaderV1 {
			return 0, fmt.Errorf("PROXY header without an end in %d octets", maxHeaderV1)
		}
		return 0, nil
	case strings.HasPrefix(signatureV1, string(buf)):
		return 0, nil
	}
	return 0, errNoHeader
}

// believe takes the client's addresses, and where the listener says so its TLS facts, from a header. A header with
// the command LOCAL, as health checks send it, or of an unknown family leaves the socket's own addresses.
func (s *session) believe(header []byte) error {
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(header)))
	if err != nil {
		return fmt.Errorf("read PROXY header: %w", err)
	}
	if h.Version == 2 && !checksumFits(header) {
		return errBadChecksum
	}
	if h.Command.IsLocal() {
		s.offloaded(nil)
		return nil
	}
	if source, destination, ok := h.TCPAddrs(); ok {
		s.client.Addr, s.client.Local, s.client.Proxied = addrPort(source), addrPort(destination), true
	}
	tlvs, err := h.TLVs()
	if err != nil {
		return fmt.Errorf("read PROXY header: %w", err)
	}
	s.offloaded(tlvs)
	return nil
}

// offloaded takes it from the header that the client came over TLS, on a listener where that ends before popgate.
// A load balancer that says nothing of TLS is believed to have ended it, for that is what the listener is for.
func (s *session) offloaded(tlvs []proxyproto.TLV) {
	if s.listener.TLS != TLSOffloaded {
		return
	}
	facts := &auth.TLS{Offloaded: true}
	for _, tlv := range tlvs {
		if tlv.Type == proxyproto.PP2_TYPE_AUTHORITY {
			if name, err := auth.Domain(string(tlv.Value)); err == nil {
				facts.ServerName = name
			}
		}
	}
	if ssl, ok := tlvparse.FindSSL(tlvs); ok {
		if !ssl.ClientSSL() {
			return // the load balancer says itself that this client came in clear
		}
		version, _ := ssl.SSLVersion()
		facts.Version = strings.Replace(version, "TLSv", "TLS ", 1) // as our own handshakes write it
		facts.Cipher, _ = ssl.SSLCipher()
		facts.Group, _ = ssl.SSLGroup()
	}
	s.client.TLS = facts
}

// checksumFits checks the CRC32C of a version 2 header, which go-proxyproto leaves alone. A header without one fits.
func checksumFits(header []byte) bool {
	at := fixedHeaderV2 + addressLength(header[13])
	for at+3 <= len(header) {
		kind, size := header[at], int(binary.BigEndian.Uint16(header[at+1:]))
		value := at + 3
		if value+size > len(header) {
			return true // no TLVs after all; go-proxyproto has judged the rest
		}
		if proxyproto.PP2Type(kind) == proxyproto.PP2_TYPE_CRC32C {
			if size != 4 {
				return false
			}
			want := binary.BigEndian.Uint32(header[value:])
			zeroed := bytes.Clone(header)
			clear(zeroed[value : value+4])
			return crc32.Checksum(zeroed, crc32.MakeTable(crc32.Castagnoli)) == want
		}
		at = value + size
	}
	return true
}

// addressLength is the length of the addresses in a version 2 header whose 14th octet is family.
func addressLength(family byte) int {
	switch family >> 4 {
	case 1:
		return 12
	case 2:
		return 36
	case 3:
		return 216
	}
	return 0
}

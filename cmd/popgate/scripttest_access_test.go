package main

import (
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdMMDB makes a database of countries or of the operators of networks:
//
//	mmdb FILE country NETWORK=CODE...
//	mmdb FILE asn NETWORK=NUMBER...
func cmdMMDB(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || args[1] != "country" && args[1] != "asn" {
		ts.Fatalf("usage: mmdb FILE country|asn NETWORK=VALUE...")
	}
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: args[1], IncludeReservedNetworks: true})
	ts.Check(err)
	for _, arg := range args[2:] {
		text, value, _ := strings.Cut(arg, "=")
		_, network, err := net.ParseCIDR(text)
		ts.Check(err)
		record := mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(value)}}
		if args[1] == "asn" {
			n, err := strconv.ParseUint(value, 10, 32)
			ts.Check(err)
			record = mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(n)}
		}
		ts.Check(tree.Insert(network, record))
	}
	file, err := os.Create(ts.MkAbs(args[0] + ".new"))
	ts.Check(err)
	_, err = tree.WriteTo(file)
	ts.Check(err)
	ts.Check(file.Close())
	ts.Check(os.Rename(file.Name(), ts.MkAbs(args[0]))) // as who updates such a file has to do it
}

// cmdSilentDNS keeps a UDP port at which questions arrive and are never answered, $VAR on 127.0.0.1.
func cmdSilentDNS(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: silentdns VAR")
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	ts.Check(err)
	s := stageOf(ts)
	s.servers = append(s.servers, conn.Close)
	ts.Setenv(args[0], strconv.Itoa(conn.LocalAddr().(*net.UDPAddr).Port))
}

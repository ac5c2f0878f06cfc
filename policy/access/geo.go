package access

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/oschwald/maxminddb-golang/v2"
)

// geoSample is how many networks of a database are looked at before it is believed to tell what it is for.
const geoSample = 1000

// A geo is a database of countries or operators. It is held in memory and not mapped: who overwrites a mapped file, as cp does, ends
// the process with SIGBUS, and a map must not go while somebody reads it. So nobody has to close it.
type geo struct {
	db *maxminddb.Reader
}

// size counts the nodes of the database's tree.
func (g *geo) size() int { return int(g.db.Metadata.NodeCount) }

// parseCountries reads a database that tells countries.
func parseCountries(r io.Reader) (*geo, error) {
	return parseGeo(r, "no country.iso_code for any network: take one of countries in MaxMind's format",
		func(found maxminddb.Result) bool { return countryOf(found) != "" })
}

// parseASNs reads a database that tells operators.
func parseASNs(r io.Reader) (*geo, error) {
	return parseGeo(r, "no autonomous_system_number for any network: take one of ASNs in MaxMind's format",
		func(found maxminddb.Result) bool { return asnOf(found) != 0 })
}

func parseGeo(r io.Reader, problem string, tells func(maxminddb.Result) bool) (*geo, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	db, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, err
	}
	looked := 0
	for found := range db.Networks() {
		if err := found.Err(); err != nil {
			return nil, err
		}
		if tells(found) {
			return &geo{db}, nil
		}
		if looked++; looked == geoSample {
			break
		}
	}
	return nil, errors.New("the database (" + clip(db.Metadata.DatabaseType) + ") has " + problem)
}

// country is the two letters of where addr is, unknownCountry where nobody knows.
func (g *geo) country(addr netip.Addr) string {
	if code := countryOf(g.db.Lookup(addr)); code != "" {
		return code
	}
	return unknownCountry
}

// asn is the number of who operates addr's network, 0 where nobody knows.
func (g *geo) asn(addr netip.Addr) uint32 { return asnOf(g.db.Lookup(addr)) }

// countryOf is where the network is or, for those that are in several places, where it is registered. What cannot be read counts as
// not known: a fault in one record is no reason to fail.
func countryOf(found maxminddb.Result) string {
	var code string
	if err := found.DecodePath(&code, "country", "iso_code"); err != nil || code == "" {
		code = ""
		if err := found.DecodePath(&code, "registered_country", "iso_code"); err != nil {
			return ""
		}
	}
	if !isCountry(code) {
		return ""
	}
	return code
}

func asnOf(found maxminddb.Result) uint32 {
	var n uint32
	if err := found.DecodePath(&n, "autonomous_system_number"); err != nil {
		return 0
	}
	return n
}

// asnText is an ASN as people write it.
func asnText(n uint32) string { return fmt.Sprintf("AS%d", n) }

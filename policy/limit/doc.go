// Package limit holds the rules of what clients and users may take of popgate: how a limit is written, which limits hold for
// whom, and what each moment of a session asks package store for.
//
// Rates are GCRA, the generic cell rate algorithm (ITU-T I.371), whose arithmetic is store's. Rates and Rate.Take apply it by
// themselves, for who has something of his own to bound; a Pacer is for what waits for its turn and is never refused.
package limit

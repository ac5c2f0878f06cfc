// Package storage keeps what certmagic must find again: ACME accounts, private keys, certificates, challenges under way and
// the locks around them; in files, in Redis or in PostgreSQL, where several gateways share them.
//
// # What is promised
//
// In shared storage values are encrypted (AES-256-GCM, with the record's own key bound in, so that records cannot be swapped).
// The names of records are not: who reads the storage learns which host names there are. Who can write it can bring back an
// older version of a record, and can delete; nothing else.
//
// A lock is a lease of half a minute which its holder renews. When the holder dies, somebody else has it half a
// minute later; when the storage is away for longer than that, two may hold it, which certmagic is made to bear. Times
// are those of the storage's clock, never of a gateway's.
//
// With shared storage each gateway has a copy of the certificates it uses, encrypted alike, and serves from it when
// the storage cannot be reached, after a restart too. Accounts are not copied, so no certificate is ordered then.
package storage

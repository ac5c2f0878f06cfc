package directory

// A contentError is about what a source has for this one user or domain, which nobody can follow. The source itself is well, or a
// stranger whose domain's records are broken could have it taken for down. The text shows nothing that is secret.
type contentError struct{ error }

// asContent makes err one; nil stays nil.
func asContent(err error) error {
	if err == nil {
		return nil
	}
	return contentError{err}
}

// Unwrap gives what is wrong.
func (e contentError) Unwrap() error { return e.error }

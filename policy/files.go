package policy

import (
	"errors"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/wforce"
)

// Files reads the files that sections which have passed Validate name, and says what is wrong with them. It asks nobody.
func Files(a access.Config, w wforce.Config) auth.Faults {
	_, err1 := access.New(nil, nil).Prepare(a)
	_, err2 := wforce.New(nil, nil).Prepare(w)
	var err3 error
	if w.Serve.Address != "" {
		_, err3 = wforce.NewServer(nil, nil, nil).Prepare(w.Serve)
	}
	var all auth.Faults
	for _, err := range []error{err1, within("weakforced", err2), within("weakforced.serve", err3)} {
		if faults, ok := errors.AsType[auth.Faults](err); ok {
			all = append(all, faults...)
		}
	}
	return all
}

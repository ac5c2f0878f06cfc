package policy

import (
	"context"
	"time"

	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/store"
)

// pacers hold a session to the rates that wait and do not refuse.
type pacers struct {
	download, commands []store.Ask
	bytes              limit.Meter
}

// newPacers makes those that the session of a client that has logged in has, nil for none.
func newPacers(g *Gate, e *entry) *pacers {
	download, commands := g.asks(nil, limit.Downloading, e), g.asks(nil, limit.Commanding, e)
	if len(download)+len(commands) == 0 {
		return nil
	}
	return &pacers{download: download, commands: commands}
}

// Paced says whether what a session carries has to be told to Download and Commands. A nil Visit has nothing to tell.
func (v *Visit) Paced() (download, commands bool) {
	if v == nil || v.pacers == nil {
		return false, false
	}
	return len(v.pacers.download) > 0, len(v.pacers.commands) > 0
}

// Download says how long to wait before more is carried to the client, after n bytes.
func (v *Visit) Download(ctx context.Context, n int) time.Duration {
	turns := v.pacers.bytes.Turns(int64(n))
	if turns == 0 {
		return 0
	}
	return v.gate.keeper.state.Spend(ctx, v.pacers.download, turns)
}

// Commands says how long to wait before more is taken from the client, after n commands.
func (v *Visit) Commands(ctx context.Context, n int) time.Duration {
	return v.gate.keeper.state.Spend(ctx, v.pacers.commands, int64(n))
}

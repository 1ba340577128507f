package prior

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// userTable is the name of the learned table of kinds that have one: Users rows and nobody's.
const userTable = "user.weight"

// WithUsers returns a prior with the network of s and a table of n users whom it does not know yet: their rows start as those of a new
// prior do, drawn from seed, nobody's row is that of s. Steps and moments start anew. It returns an error where s has no table of users.
func (s *State) WithUsers(n int, seed uint64) (*State, error) {
	if !s.Config.HasUserTable() {
		return nil, fmt.Errorf("making a table of users: kind %s reads windows and has none", s.Config.Kind)
	}
	cfg := s.Config
	cfg.Users = n
	out, err := NewState(cfg, s.Stats, seed)
	if err != nil {
		return nil, err
	}
	from, to := s.Config.network().layout(), out.Config.network().layout()
	for i, p := range to.parameters {
		q := from.parameters[i]
		for _, v := range [][2][]float32{{out.Params, s.Params}, {out.EMA, s.EMA}} {
			dst, src := v[0][p.offset:p.offset+p.size], v[1][q.offset:q.offset+q.size]
			if p.name == userTable { // nobody is the last row of both
				width := p.size / p.shape[0]
				dst, src = dst[len(dst)-width:], src[len(src)-width:]
			}
			copy(dst, src)
		}
	}
	return out, nil
}

// StepUsers is Step with all but the table of users frozen: the network answers as before, and the rows of the batch's users are fitted
// to it. Their moving average follows at once, so that what is fitted is what samples. It panics where there is no such table.
func (l *Learner) StepUsers(b *Batch, lr float64, rng *rand.Rand) (StepStats, error) {
	from, to := l.net.layout().span(userTable)
	at := l.vectors.flat
	var kept [2][]float32
	for i, v := range []int{flatParams, flatEMA} {
		kept[i] = slices.Clone(at[v])
	}
	stats, err := l.Step(b, lr, rng)
	if err != nil {
		return stats, err
	}
	for i, v := range []int{flatParams, flatEMA} {
		copy(at[v][:from], kept[i][:from])
		copy(at[v][to:], kept[i][to:])
	}
	copy(at[flatEMA][from:to], at[flatParams][from:to])
	return stats, nil
}

// span returns where a parameter lies in the flat vectors.
func (l *layout) span(name string) (from, to int) {
	for _, p := range l.parameters {
		if p.name == name {
			return p.offset, p.offset + p.size
		}
	}
	panic("prior: there is no parameter " + name)
}

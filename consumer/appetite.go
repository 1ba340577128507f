package consumer

const (
	// pageBytes is what kafka-go takes for each batch that it decodes, however
	// small: a fetch of thousands of small batches is far larger in memory than on
	// the wire, and so is one of compressed batches.
	pageBytes = 64 << 10
	// recordBytes is what a record takes beside its key and value.
	recordBytes = 128
	// firstAsk is what a loop asks for at the end of the log, where it cannot know
	// what comes next, and at its start.
	firstAsk = 128 << 10
	leastAsk = 16 << 10
	// answerBytes is how large an answer may get in memory.
	answerBytes = 16 << 20
)

// appetite decides how many bytes of the log a loop asks for at once, so that
// what a fetch takes in memory stays near answerBytes whatever the batches are
// like. A single batch always comes whole.
type appetite struct {
	most int // the loop's own bound
	ask  int
}

func newAppetite(most int) *appetite {
	return &appetite{most: most, ask: min(most, firstAsk)}
}

// ate takes the memory of the last answer, and whether the log goes on behind it.
func (a *appetite) ate(memory int, more bool) {
	switch {
	case memory > answerBytes:
		a.ask = max(leastAsk, int(int64(a.ask)*answerBytes/int64(memory)))
	case !more:
		a.ask = min(a.ask, firstAsk)
	case memory <= answerBytes/2:
		a.ask *= 2
	}
	a.ask = min(a.ask, a.most)
}

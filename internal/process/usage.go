package process

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// WatchMemory returns a channel with the largest anonymous resident memory of the process, in MiB, sent once when it has ended; 0
// where the system does not tell.
func (p *Process) WatchMemory() <-chan float64 {
	peak := make(chan float64, 1) // holds the one result, so that nobody has to wait for it
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		most := 0.0
		for {
			select {
			case <-p.done:
				peak <- most
				return
			case <-tick.C:
				most = max(most, p.AnonymousMiB())
			}
		}
	}()
	return peak
}

// AnonymousMiB returns the anonymous resident memory of the process now (RssAnon, see proc(5)): heap and stacks, without mapped files;
// 0 where the system does not tell.
func (p *Process) AnonymousMiB() float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, "RssAnon:"); found {
			kib, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024
		}
	}
	return 0
}

// CPU returns the processor time the process has used, to 10 ms; 0 where the system does not tell.
func (p *Process) CPU() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0
	}
	// The second field is the program's name in parentheses and may hold anything; utime and stime are the 12th and 13th behind it,
	// in ticks of 1/100 s, which Linux fixes for programs.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

package online

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"rebeca/prior"
)

// schooling is a recipe at the size of a test, with a student that is measured by distances.
func schooling(distances func(*prior.State, []prior.Context) ([3]float64, error)) Config {
	c := quick()
	c.Student, c.Distances, c.StudentBound = true, distances, .2
	return c
}

// constant measures the same in whatever state.
func constant(d ...float64) func(*prior.State, []prior.Context) ([3]float64, error) {
	return func(*prior.State, []prior.Context) ([3]float64, error) { return [3]float64(d), nil }
}

// taught is the state of the last version that s announced.
func (s *station) taught() *prior.State {
	s.t.Helper()
	st, err := prior.LoadState(s.last().URI)
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

func (s *station) learnAll(d *Drive, events []Example) {
	s.t.Helper()
	if err := errors.Join(d.Learn(s.t.Context(), events), d.Rest(s.t.Context())); err != nil {
		s.t.Fatal(err)
	}
}

// TestStudentIsLearnedBesideThePrior: a step for two of the prior, in the checkpoint and on the announcement, with no effect on the
// prior itself.
func TestStudentIsLearnedBesideThePrior(t *testing.T) {
	var seen [][]prior.Context
	cfg := schooling(func(s *prior.State, windows []prior.Context) ([3]float64, error) {
		if s.Student == nil {
			return [3]float64{}, errors.New("no student")
		}
		seen = append(seen, slices.Clone(windows))
		return [3]float64{.3, .1, -.01}, nil
	})
	run := func(cfg Config) *station {
		w := newClusters(1, 3, 60)
		s, d := driven(t, cfg, w)
		s.learnAll(d, w.events(64+10*64, 9))
		return s
	}
	s := run(cfg)
	st := s.taught()
	if st.Step != 24 || st.Student == nil || st.Student.Step != 11 { // the first 4 steps make it, it learns at 4, 6, … 24
		t.Fatalf("step %d, %v", st.Step, s.Status().Student)
	}
	want := prior.Fidelity{Distances: [3]float32{.3, .1, 0}, Bound: .2}
	if st.Student.Fidelity != want || st.Student.Fewest() != 2 {
		t.Errorf("fidelity %+v, want %+v", st.Student.Fidelity, want)
	}
	if m := s.last().Metrics; m["student_passes"] != 2 || m["student_distance_1"] != float64(float32(.3)) || m["student_distance_4"] != 0 {
		t.Errorf("announced with %v", m)
	}
	status := s.Status().Student
	if status == nil || status.Steps != 11 || status.Passes != 2 || status.Distances["2"] != float64(float32(.1)) || status.Bound != .2 || !(status.Loss > 0) {
		t.Errorf("status %+v", status)
	}
	if n := counted(t, s.school.steps); n != 11 {
		t.Errorf("%v steps counted", n)
	}
	for _, windows := range seen {
		if len(windows) == 0 || len(windows) > studentWindows || slices.ContainsFunc(windows, func(c prior.Context) bool { return len(c) == 0 }) {
			t.Errorf("measured on %d windows", len(windows))
		}
	}
	alone := run(quick()).taught()
	if !slices.Equal(alone.EMA, st.EMA) || !slices.Equal(alone.V, st.V) || alone.Student != nil {
		t.Error("the prior learns otherwise with a student beside it")
	}
}

// TestStudentIsSwitchedOff: what is beyond the bound, or cannot be measured, is not used; and it is again once it is near.
func TestStudentIsSwitchedOff(t *testing.T) {
	var distances [3]float64
	var fail error
	w := newClusters(1, 3, 60)
	s, d := driven(t, schooling(func(*prior.State, []prior.Context) ([3]float64, error) { return distances, fail }), w)
	s.learnAll(d, w.events(64, 9))
	for _, c := range []struct {
		distances [3]float64
		fail      error
		passes    int
	}{
		{[3]float64{.3, .1, .1}, nil, 2},
		{[3]float64{.3, .3, .21}, nil, 0},
		{[3]float64{0, 0, 0}, errors.New("a leap of no finite number"), 0},
		{[3]float64{.1, .3, .1}, nil, 1},
	} {
		distances, fail = c.distances, c.fail
		s.learnAll(d, w.events(64, 9))
		f := s.taught().Student.Fidelity
		if status := s.Status().Student; f.Fewest() != c.passes || status.Passes != c.passes || (len(status.Distances) == 0) != (c.fail != nil) {
			t.Errorf("distances %v, %v: fidelity %+v, status %+v", c.distances, c.fail, f, status)
		}
	}
}

// TestStudentSurvivesARestart: the weights of a run that was stopped and went on are those of one that was not.
func TestStudentSurvivesARestart(t *testing.T) {
	run := func(restart bool) *prior.State {
		w := newClusters(1, 3, 60)
		dir, cfg := t.TempDir(), schooling(constant(.1, .1, .1))
		s := newStation(t, cfg, w, dir)
		d := s.Drive()
		if err := d.Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.learnAll(d, w.events(64+3*64, 9))
		if restart {
			d.Close()
			s = newStation(t, cfg, w, dir)
			d = s.Drive()
			if err := d.Begin(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		defer d.Close()
		s.learnAll(d, w.events(3*64, 9))
		return s.taught()
	}
	whole, stopped := run(false), run(true)
	if !reflect.DeepEqual(whole.Student, stopped.Student) || !slices.Equal(whole.EMA, stopped.EMA) {
		t.Errorf("students at step %d and %d differ", whole.Student.Step, stopped.Student.Step)
	}
}

// TestStudentIsDroppedWithoutTheOption: a checkpoint's student is not kept where none is learned: it would no longer follow.
func TestStudentIsDroppedWithoutTheOption(t *testing.T) {
	w, dir := newClusters(1, 3, 60), t.TempDir()
	for _, on := range []bool{true, false, true} {
		cfg := schooling(constant(.1, .1, .1))
		cfg.Student = on
		s := newStation(t, cfg, w, dir)
		d := s.Drive()
		if err := d.Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.learnAll(d, w.events(128, 9))
		d.Close()
		if st := s.taught(); (st.Student != nil) != on || (s.Status().Student != nil) != on {
			t.Errorf("learned %v: student %v, status %v", on, st.Student != nil, s.Status().Student)
		}
		if _, ok := s.last().Metrics["student_passes"]; ok != on {
			t.Errorf("learned %v: announced %v", on, ok)
		}
	}
}

// TestStudentWaitsForAThirdOfBirth.
func TestStudentWaitsForAThirdOfBirth(t *testing.T) {
	cfg := schooling(constant(.1, .1, .1))
	cfg.BirthSteps, cfg.AnnounceSteps = 30, 4
	s, d := driven(t, cfg, newClusters(1, 3, 60))
	s.learnAll(d, nil)
	if st := s.taught(); st.Step != 30 || st.Student == nil || st.Student.Step != 11 { // at 10, 12, … 30
		t.Errorf("step %d, %v", st.Step, s.Status().Student)
	}
	for _, v := range s.heard() {
		if _, ok := v.Metrics["student_passes"]; ok != (v.Step >= 10) {
			t.Errorf("version of step %d: %v", v.Step, v.Metrics)
		}
	}
}

func TestStartFromLikes(t *testing.T) {
	item := func(x float32) []float32 { return []float32{x} }
	long := slices.Repeat(prior.Context{{Item: item(9), Class: prior.StrongNegative}}, fewEvents+1)
	b := &prior.Batch{
		Contexts: []prior.Context{nil, {{Item: item(8), Class: prior.StrongPositive}}, long},
		Targets: []prior.Target{
			{Context: 0, Item: item(1), Label: prior.StrongNegative},
			{Context: 1, Item: item(2), Label: prior.WeakNegative}, {Context: 1, Item: item(3), Label: prior.WeakPositive},
			{Context: 2, Item: item(4), Label: prior.StrongPositive}, {Context: 2, Item: item(5), Label: prior.StrongPositive},
		},
	}
	startFromLikes(b, 2)
	var left []float32
	for _, x := range b.Targets {
		left = append(left, x.Item[0])
	}
	if !slices.Equal(left, []float32{1, 3, 4, 5}) {
		t.Errorf("rows start from %v", left)
	}
	if c := b.Contexts[1]; len(b.Contexts[0]) != 0 || len(c) != 2 || c[0].Item[0] != 3 || c[0].Class != prior.WeakPositive || len(b.Contexts[2]) != len(long) {
		t.Errorf("contexts %v", b.Contexts)
	}
}

// TestPromotedWithItsStudent: an earlier version comes back with its own student and what was said of that; without the option its student
// goes with the next candidate.
func TestPromotedWithItsStudent(t *testing.T) {
	w, dir := newClusters(1, 3, 60), t.TempDir()
	distances := [3]float64{.1, .1, .1}
	cfg := schooling(func(*prior.State, []prior.Context) ([3]float64, error) { return distances, nil })
	s := newStation(t, cfg, w, dir)
	d := s.Drive()
	if err := d.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.learnAll(d, w.events(128, 9))
	first, before := s.last(), s.taught()
	distances = [3]float64{.9, .9, .9}
	s.learnAll(d, w.events(128, 9))
	d.Close()
	v, err := Promote(dir, first.Number, 0, s.log)
	if err != nil {
		t.Fatal(err)
	}
	if v.Metrics["student_passes"] != 1 || v.Metrics["student_distance_1"] != first.Metrics["student_distance_1"] {
		t.Errorf("promoted with %v", v.Metrics)
	}
	cfg.Student = false
	s = newStation(t, cfg, w, dir)
	d = s.Drive()
	defer d.Close()
	if err := d.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := s.taught(); s.last().Number != v.Number || !reflect.DeepEqual(st.Student, before.Student) {
		t.Errorf("version %d in use, its student is another", s.last().Number)
	}
	s.learnAll(d, w.events(128, 9))
	if _, ok := s.last().Metrics["student_passes"]; ok || s.taught().Student != nil {
		t.Errorf("the next is announced with %v", s.last().Metrics)
	}
}

package prior

import (
	"fmt"

	"rebeca/internal/ort"
)

// Leap says what one row of Model.Leap is asked for: from timestep T of Row to timestep To under a guidance.
type Leap struct {
	Row
	To       int     // below T; 0 for the sample itself
	Guidance float64 // 1..MaxStudentGuidance, in steps of a hundredth
}

// Fidelity returns how near the student's samples are to those of Denoise, and whether there is a student.
func (m *Model) Fidelity() (Fidelity, bool) { return m.fidelity, m.student }

func (m *Model) compileStudent(s *State, o ort.Options) error {
	l, flat := m.net.studentLayout(), m.net.studentWeights(s.EMA, s.Student.EMA)
	for _, rows := range m.net.denoiseShapes() {
		session, err := m.net.denoiserGraph(l, flat, rows, true).Compile(o)
		if err != nil {
			return err
		}
		d := &denoiser{rows: rows, session: session}
		d.tensors.make = func() *denoiseTensors { return m.net.newDenoiseTensors(rows, true) }
		m.leapers = append(m.leapers, d)
	}
	m.fidelity, m.student = s.Student.Fidelity, true
	return nil
}

// Leap writes the student's estimate of x₀ for the leap of each row to dst: with x_t it gives x_s, see StudentCells for the times it
// was taught. dst, x and panics are as of Denoise, and so is the promise that a row's bits depend on it alone. A model without a
// student, and rows out of range, are errors.
func (m *Model) Leap(dst, x []float32, leaps []Leap) error {
	dim := m.net.Dim
	if len(x) != len(leaps)*dim || len(dst) != len(x) {
		panic(fmt.Sprintf("prior: leaping %d rows of %d dimensions from %d values to %d", len(leaps), dim, len(x), len(dst)))
	}
	if !m.student {
		return fmt.Errorf("leaping: the prior has no student")
	}
	rows := make([]Row, len(leaps))
	for i, l := range leaps {
		_, known := m.net.labelColumn(l.Label)
		if l.To < 0 || l.To >= l.T || l.T > m.net.Timesteps || !known || !(l.Guidance >= 1 && l.Guidance <= MaxStudentGuidance) {
			return fmt.Errorf("leaping row %d: from timestep %d of %d to %d, label %v, guidance %v", i, l.T, m.net.Timesteps, l.To, l.Label, l.Guidance)
		}
		rows[i] = l.Row
	}
	m.enter()
	defer m.running.RUnlock()
	for len(rows) > 0 {
		d := denoiserFor(m.leapers, len(rows))
		n := min(d.rows, len(rows))
		if err := m.denoise(d, dst[:n*dim], x[:n*dim], rows[:n], leaps[:n]); err != nil {
			return err
		}
		dst, x, rows, leaps = dst[n*dim:], x[n*dim:], rows[n:], leaps[n:]
	}
	return nil
}

package rebeca

import (
	"fmt"
	"testing"

	"rebeca/sampler"
	"rebeca/schemas"
)

// TestStudentServes: the student that is learned beside the prior makes the images, in as few passes as its trainer found near enough;
// a restart that asks for the teacher has it make them from the same version's file.
func TestStudentServes(t *testing.T) {
	s := newStand(t)
	s.config.Train.Student, s.config.Train.StudentBound = true, 100 // whatever it has learned is near enough
	s.items(300)
	svc, stop := s.serve()
	s.crowd("a", 200)
	taught := func() bool {
		student := svc.Status().Training.Student
		return student != nil && student.Passes > 0 && atRest(svc)()
	}
	s.until("a student is announced", taught)
	student := svc.Status().Training.Student
	if student.Passes != 1 || student.Steps == 0 || student.Bound != 100 || len(student.Distances) != 3 {
		t.Errorf("the student is %+v", student)
	}
	s.until("that version is in use", func() bool { return svc.Status().PriorNumber == svc.trainer.Status().Number })
	steps := func(id string) int {
		at := s.feedback(schemas.Feedback{EventID: id, UserID: "user-1", ItemID: "item-1", Kind: schemas.KindLike})
		made := 0
		s.until(fmt.Sprintf("an image of %s", id), func() bool {
			for _, g := range s.generated() {
				if g.Source.Partition == at.Partition && g.Source.Offset == at.Offset {
					made = g.Steps
				}
			}
			return made > 0
		})
		return made
	}
	if n := steps("by the student"); n != 1 {
		t.Errorf("an image took %d steps, want the student's one", n)
	}
	s.until("at rest", atRest(svc))
	stop()
	s.config.Sampler.Passes = sampler.ByTeacher
	s.serve()
	if n := steps("by the teacher"); n != s.config.Sampler.Steps {
		t.Errorf("an image took %d steps, want the teacher's %d", n, s.config.Sampler.Steps)
	}
}

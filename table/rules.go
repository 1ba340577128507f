package table

import (
	"fmt"

	"rebeca/prior"
	"rebeca/schemas"
)

// Rules say how feedback becomes facts. A state keeps the rules it was born with: other rules make other facts of the same log.
type Rules struct {
	Newest  int     `json:"newest"` // entries of the window in order of arrival, 1..4096
	Liked   int     `json:"liked"`  // older strong likes kept beside them, 0..4096
	Dedupe  int     `json:"dedupe"` // distinct event ids remembered per user, 1..65535
	Classes Classes `json:"classes"`
}

// DefaultRules returns 28 newest entries, 24 older likes, 64 remembered event ids and DefaultClasses.
func DefaultRules() Rules {
	return Rules{Newest: 28, Liked: 24, Dedupe: 64, Classes: DefaultClasses()}
}

// Validate names the first field that is out of range.
func (r Rules) Validate() error {
	for _, f := range []struct {
		name          string
		value, lo, hi int
	}{{"newest", r.Newest, 1, 4096}, {"liked", r.Liked, 0, 4096}, {"dedupe", r.Dedupe, 1, 65535}} {
		if f.value < f.lo || f.value > f.hi {
			return fmt.Errorf("%s: %d is not between %d and %d", f.name, f.value, f.lo, f.hi)
		}
	}
	return r.Classes.validate()
}

// Classes give each kind of feedback its class. Kinds whose class is prior.ClassNone are counted and not windowed. Undo has no class.
type Classes struct {
	Like    prior.Class `json:"like"`
	Dislike prior.Class `json:"dislike"`
	Click   prior.Class `json:"click"`
	Skip    prior.Class `json:"skip"`
	Share   prior.Class `json:"share"`
	Save    prior.Class `json:"save"`
	Hide    prior.Class `json:"hide"`
	View    Scale       `json:"view"`   // by seconds; a view without a value counts as 0 seconds
	Rating  Scale       `json:"rating"` // by stars, 1..5
}

// Scale gives a class by value: Above where value >= High, else Below where value <= Low, else Between.
type Scale struct {
	Low     float64     `json:"low"`
	High    float64     `json:"high"`
	Below   prior.Class `json:"below"`
	Between prior.Class `json:"between"`
	Above   prior.Class `json:"above"`
}

func (s Scale) of(value *float64) prior.Class {
	var v float64
	if value != nil {
		v = *value
	}
	switch {
	case v >= s.High:
		return s.Above
	case v <= s.Low:
		return s.Below
	}
	return s.Between
}

// DefaultClasses: like, share, save and ratings from 4 are strong positives; clicks and views of 10 s and more weak positives;
// dislike, hide and ratings up to 2 strong negatives; skips and ratings between weak negatives; shorter views nothing.
func DefaultClasses() Classes {
	return Classes{
		Like: prior.StrongPositive, Share: prior.StrongPositive, Save: prior.StrongPositive,
		Click: prior.WeakPositive, Skip: prior.WeakNegative,
		Dislike: prior.StrongNegative, Hide: prior.StrongNegative,
		View:   Scale{Low: 0, High: 10, Above: prior.WeakPositive},
		Rating: Scale{Low: 2, High: 4, Below: prior.StrongNegative, Between: prior.WeakNegative, Above: prior.StrongPositive},
	}
}

// PaperClasses is the published setting: a rating of 4 and more is a like, any other a dislike. Other kinds are as by default.
func PaperClasses() Classes {
	c := DefaultClasses()
	c.Rating = Scale{Low: 4, High: 4, Below: prior.StrongNegative, Between: prior.StrongNegative, Above: prior.StrongPositive}
	return c
}

// Preset returns the classes by name: "default" or "paper".
func Preset(name string) (Classes, error) {
	switch name {
	case "default":
		return DefaultClasses(), nil
	case "paper":
		return PaperClasses(), nil
	}
	return Classes{}, fmt.Errorf("classes: %q is not one of default, paper", name)
}

// Of returns the class of a feedback.
func (c Classes) Of(f schemas.Feedback) prior.Class { return c.of(f.Kind, f.Value) }

func (c *Classes) of(kind schemas.Kind, value *float64) prior.Class {
	switch kind {
	case schemas.KindLike:
		return c.Like
	case schemas.KindDislike:
		return c.Dislike
	case schemas.KindClick:
		return c.Click
	case schemas.KindView:
		return c.View.of(value)
	case schemas.KindRating:
		return c.Rating.of(value)
	case schemas.KindSkip:
		return c.Skip
	case schemas.KindShare:
		return c.Share
	case schemas.KindSave:
		return c.Save
	case schemas.KindHide:
		return c.Hide
	}
	return prior.ClassNone
}

func (c Classes) validate() error {
	for _, f := range []struct {
		name  string
		class prior.Class
	}{
		{"like", c.Like}, {"dislike", c.Dislike}, {"click", c.Click}, {"skip", c.Skip}, {"share", c.Share}, {"save", c.Save},
		{"hide", c.Hide}, {"view.below", c.View.Below}, {"view.between", c.View.Between}, {"view.above", c.View.Above},
		{"rating.below", c.Rating.Below}, {"rating.between", c.Rating.Between}, {"rating.above", c.Rating.Above},
	} {
		if f.class > prior.NumClasses {
			return fmt.Errorf("classes.%s: %d is no class", f.name, f.class)
		}
	}
	for _, s := range []struct {
		name  string
		scale Scale
	}{{"view", c.View}, {"rating", c.Rating}} {
		// Negated so that NaN is refused.
		if !(s.scale.Low <= s.scale.High) {
			return fmt.Errorf("classes.%s: low %v is above high %v", s.name, s.scale.Low, s.scale.High)
		}
	}
	return nil
}

// kindCodes are the codes of kinds in a row, for ever: a position is a code.
var kindCodes = [...]schemas.Kind{
	1: schemas.KindLike, 2: schemas.KindDislike, 3: schemas.KindClick, 4: schemas.KindView, 5: schemas.KindRating,
	6: schemas.KindSkip, 7: schemas.KindShare, 8: schemas.KindSave, 9: schemas.KindHide, 10: schemas.KindUndo,
}

// kindCode returns the code of a kind, 0 for an unknown one.
func kindCode(k schemas.Kind) uint8 {
	switch k {
	case schemas.KindLike:
		return 1
	case schemas.KindDislike:
		return 2
	case schemas.KindClick:
		return 3
	case schemas.KindView:
		return 4
	case schemas.KindRating:
		return 5
	case schemas.KindSkip:
		return 6
	case schemas.KindShare:
		return 7
	case schemas.KindSave:
		return 8
	case schemas.KindHide:
		return 9
	case schemas.KindUndo:
		return 10
	}
	return 0
}

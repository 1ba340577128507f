package shapes

import "strings"

// Names of the shapes. They stay apart at any rotation: one has a notch, one four
// corners, one five points, one a hole.
const (
	Heart  = "heart"
	Square = "square"
	Star   = "star"
	Ring   = "ring"
)

// Names of the hues, 60 degrees apart from red at 0.
const (
	Red     = "red"
	Yellow  = "yellow"
	Green   = "green"
	Cyan    = "cyan"
	Blue    = "blue"
	Magenta = "magenta"
)

// Taste is what a picture shows and what a person likes: one shape in one hue.
type Taste struct {
	Shape string `json:"shape"`
	Hue   string `json:"hue"`
}

// String gives the taste in words: "red heart".
func (t Taste) String() string { return t.Hue + " " + t.Shape }

// Shared is the number of attributes, 0 to 2, that two tastes have in common.
func (t Taste) Shared(o Taste) int {
	n := 0
	if t.Shape == o.Shape {
		n++
	}
	if t.Hue == o.Hue {
		n++
	}
	return n
}

// Caption names tastes for people: "red hearts, blue stars".
func Caption(tastes []Taste) string {
	words := make([]string, len(tastes))
	for i, t := range tastes {
		words[i] = t.String() + "s"
	}
	return strings.Join(words, ", ")
}

// cross lists every shape in every hue, hue by hue.
func cross(shapes, hues []string) []Taste {
	tastes := make([]Taste, 0, len(shapes)*len(hues))
	for _, h := range hues {
		for _, s := range shapes {
			tastes = append(tastes, Taste{Shape: s, Hue: h})
		}
	}
	return tastes
}

package eval

import (
	"fmt"
	"strings"

	"rebeca/eval/shapes"
)

// kind is a sort of world: its usual sizes, its items and its law.
type kind struct {
	shape   Shape
	preset  func() shapes.Preset // of pictures; nil for latents
	latents func(s Shape, seed uint64) (catalogue, error)
	law     func() law
}

// kinds are the worlds by name; a new one is a line here.
func kinds() []kind {
	plain := func() law { return binary(nil) }
	demo := Shape{
		Name: "demo", Items: 12000, Fresh: 2400, People: 1000, Events: 60000, Dim: 16,
		Tastes: 24, MinLiked: 1, MaxLiked: 3, Arrival: .8, Aimed: .5, Inside: .95, Outside: .03,
	}
	return []kind{{shape: demo, preset: shapes.Demo, law: plain}}
}

func kindOf(name string) (kind, error) {
	for _, k := range kinds() {
		if k.shape.Name == name {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("there is no world %q: it is one of %s", name, strings.Join(Names(), ", "))
}

// Names lists the worlds.
func Names() (names []string) {
	for _, k := range kinds() {
		names = append(names, k.shape.Name)
	}
	return names
}

// Named returns the usual sizes of a world; an unknown name is an error that lists the others.
func Named(name string) (Shape, error) {
	k, err := kindOf(name)
	return k.shape, err
}

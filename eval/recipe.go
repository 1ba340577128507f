package eval

import (
	"fmt"
	"reflect"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"rebeca/internal/ort"
	"rebeca/online"
	"rebeca/prior"
	"rebeca/sampler"
	"rebeca/table"
)

// Recipe is everything about learning that can be told otherwise.
type Recipe struct {
	Prior   prior.Config
	Train   online.Config
	Sampler sampler.Options
	Window  table.Rules
	Runtime ort.Options // of the model that samples
}

// DefaultRecipe is what the service does by default with embeddings of dim dimensions.
func DefaultRecipe(dim int) Recipe {
	r := Recipe{Prior: prior.DefaultConfig(dim), Train: online.DefaultConfig(), Sampler: sampler.DefaultOptions(), Window: table.DefaultRules()}
	r.Prior.MaxTokens = r.Window.Newest + r.Window.Liked
	r.Runtime.Threads = 1
	return r
}

// Set changes one value by its path, as in "train.pseudo_share=.2", "prior.hidden=128", "prior.loss.objective=v",
// "sampler.guidance=2.5", "window.newest=48" or "runtime.threads=2": the section, then the field's name in small letters.
func (r *Recipe) Set(assignment string) error {
	path, value, ok := strings.Cut(assignment, "=")
	if !ok {
		return fmt.Errorf("%q is not of the form section.name=value", assignment)
	}
	v := reflect.ValueOf(r).Elem()
	for at, part := range strings.Split(path, ".") {
		next := reflect.Value{}
		var known []string
		for i := range v.NumField() {
			name := snake(v.Type().Field(i).Name)
			if settable(v.Type().Field(i).Type) {
				known = append(known, name)
			}
			if name == part && settable(v.Type().Field(i).Type) {
				next = v.Field(i)
			}
		}
		if !next.IsValid() {
			return fmt.Errorf("%s: there is no %q here, only %s", path, part, strings.Join(known, ", "))
		}
		v = next
		if v.Kind() != reflect.Struct && at < strings.Count(path, ".") {
			return fmt.Errorf("%s: %s holds a value, nothing below it", path, part)
		}
		if v.Kind() != reflect.Struct {
			break
		}
	}
	if v.Kind() == reflect.Struct {
		return fmt.Errorf("%s: names a section, not a value", path)
	}
	if err := yaml.Unmarshal([]byte(value), v.Addr().Interface()); err != nil || value == "" {
		return fmt.Errorf("%s: %q is not a %s", path, value, v.Type())
	}
	r.Prior.MaxTokens = r.Window.Newest + r.Window.Liked
	return r.Validate()
}

// settable leaves out what no word can say.
func settable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Func, reflect.Slice, reflect.Map, reflect.Pointer, reflect.Interface:
		return false
	}
	return true
}

// snake turns a Go name into one of a configuration file: PseudoShare into pseudo_share, LRMin into lr_min.
func snake(name string) string {
	var b strings.Builder
	letters := []rune(name)
	for i, c := range letters {
		if unicode.IsUpper(c) && i > 0 && (unicode.IsLower(letters[i-1]) || i+1 < len(letters) && unicode.IsLower(letters[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// Validate names the first value out of range by its path.
func (r Recipe) Validate() error {
	for _, part := range []struct {
		name string
		err  error
	}{
		{"prior", r.Prior.Validate()}, {"train", r.Train.Validate()}, {"sampler", r.Sampler.Validate()}, {"window", r.Window.Validate()},
	} {
		if part.err != nil {
			return fmt.Errorf("%s.%w", part.name, part.err)
		}
	}
	if r.Sampler.Steps > r.Prior.Timesteps {
		return fmt.Errorf("sampler.steps: %d is more than the prior's %d timesteps", r.Sampler.Steps, r.Prior.Timesteps)
	}
	return nil
}

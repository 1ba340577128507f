package rebeca

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"rebeca/sampler"
)

// decodeStrict decodes YAML into dst, a pointer to a struct that already
// holds the defaults. Unlike the decoder's own strict mode it names the path
// of every unknown key and wrong type, and reports all of them at once.
func decodeStrict(b []byte, dst any) error {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return fmt.Errorf("reading YAML: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("reading YAML: more than one document")
	}
	return errors.Join(decodeNode(doc.Content[0], reflect.ValueOf(dst).Elem(), "")...)
}

func decodeNode(n *yaml.Node, v reflect.Value, path string) []error {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if v.Kind() == reflect.Struct {
		return decodeMapping(n, v, path)
	}
	if n.Tag == "!!null" {
		return []error{fmt.Errorf("%s: line %d: is empty; leave the key out for its default", path, n.Line)}
	}
	if n.Kind == yaml.SequenceNode && v.Type() != reflect.TypeFor[Partitions]() && (v.Kind() == reflect.Slice || v.Kind() == reflect.Array) {
		return decodeList(n, v, path)
	}
	// A quoted or bare scalar of another type must not become a string.
	if v.Kind() == reflect.String && n.Kind == yaml.ScalarNode && n.Tag != "!!str" {
		return []error{fmt.Errorf("%s: line %d: %q is not a string; quote it", path, n.Line, n.Value)}
	}
	// Nor must a fraction become a whole number.
	if (v.CanInt() || v.CanUint()) && n.Tag == "!!float" {
		return []error{fmt.Errorf("%s: line %d: %s is not %s", path, n.Line, shown(n), typeName(v.Type()))}
	}
	if err := n.Decode(v.Addr().Interface()); err != nil {
		return []error{fmt.Errorf("%s: line %d: %s is not %s", path, n.Line, shown(n), typeName(v.Type()))}
	}
	return nil
}

// decodeList decodes each element under its own path. A list replaces the
// default: it keeps none of its elements.
func decodeList(n *yaml.Node, v reflect.Value, path string) (errs []error) {
	if v.Kind() == reflect.Slice {
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	} else if v.Len() != len(n.Content) {
		return []error{fmt.Errorf("%s: line %d: a list of %d is not %s", path, n.Line, len(n.Content), typeName(v.Type()))}
	}
	for i, c := range n.Content {
		errs = append(errs, decodeNode(c, v.Index(i), fmt.Sprintf("%s[%d]", path, i))...)
	}
	return errs
}

func decodeMapping(n *yaml.Node, v reflect.Value, path string) []error {
	if n.Kind != yaml.MappingNode {
		at := path
		if at == "" {
			at = "the file"
		}
		return []error{fmt.Errorf("%s: line %d: %s is not a mapping of keys", at, n.Line, shown(n))}
	}
	fields := map[string]int{}
	for i := range v.NumField() {
		fields[v.Type().Field(i).Tag.Get("yaml")] = i
	}
	var errs []error
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		field, ok := fields[key.Value]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: line %d: unknown key", at, key.Line))
		case seen[key.Value]:
			errs = append(errs, fmt.Errorf("%s: line %d: the key stands twice", at, key.Line))
		default:
			errs = append(errs, decodeNode(n.Content[i+1], v.Field(field), at)...)
		}
		seen[key.Value] = true
	}
	return errs
}

func shown(n *yaml.Node) string {
	switch n.Kind {
	case yaml.ScalarNode:
		return fmt.Sprintf("%q", n.Value)
	case yaml.SequenceNode:
		return "a list"
	}
	return "a mapping"
}

// typeName says what a field takes, in the words of the file.
func typeName(t reflect.Type) string {
	switch {
	case t.String() == "time.Duration":
		return "a duration such as 50ms or 10m"
	case t == reflect.TypeFor[Partitions]():
		return "partitions such as 0-3 or 0,2,5-7, each once"
	case t.Kind() == reflect.Map:
		return "a mapping of URLs to partitions such as 0-3"
	case t.Kind() == reflect.Slice:
		return "a list of " + strings.TrimPrefix(typeName(t.Elem()), "a ") + "s"
	case t.Kind() == reflect.Array:
		return fmt.Sprintf("a list of %d %ss", t.Len(), strings.TrimPrefix(typeName(t.Elem()), "a "))
	case t == reflect.TypeFor[Rate]():
		return "a rate such as 2000/s"
	case t == reflect.TypeFor[sampler.Passes]():
		return "auto, teacher, 1, 2 or 4"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "a string"
	case t.Kind() == reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

package daemon

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// decoder lays YAML over a struct and remembers what it found wrong. A library
// decoder stops at the first mistake, or knows paths but not lines.
type decoder struct {
	origins  map[string]string
	mistakes []error
}

func (d *decoder) mistake(origin, path, text string) {
	if path != "" {
		text = path + ": " + text
	}
	d.mistakes = append(d.mistakes, errors.New(origin+": "+text))
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

type origin func(*yaml.Node) string

func (d *decoder) decode(v reflect.Value, n *yaml.Node, path string, from origin) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return // "key:" with nothing behind it keeps what was there
	}
	if v.Kind() == reflect.Pointer && !v.Type().Implements(textType) {
		// A new value, so that the defaults of others are not written to.
		fresh := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			fresh.Elem().Set(v.Elem())
		}
		d.decode(fresh.Elem(), n, path, from)
		v.Set(fresh)
		return
	}
	if v.Type() == durationType || v.CanAddr() && v.Addr().Type().Implements(textType) {
		d.scalar(v, n, path, from)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(v, n, path, from)
	case reflect.Slice:
		d.list(v, n, path, from)
	case reflect.Map:
		d.table(v, n, path, from)
	default:
		d.scalar(v, n, path, from)
	}
}

func (d *decoder) structure(v reflect.Value, n *yaml.Node, path string, from origin) {
	if n.Kind != yaml.MappingNode {
		d.mistake(from(n), path, fmt.Sprintf("is %s, not a table of keys", describe(n)))
		return
	}
	fields := fieldsOf(v.Type())
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		inner := join(path, key.Value)
		index, known := fields[key.Value]
		switch {
		case !known:
			text := "no such key"
			if near := nearest(key.Value, fields); near != "" {
				text += "; did you mean " + near + "?"
			}
			d.mistake(from(key), inner, text)
		case seen[key.Value]:
			d.mistake(from(key), inner, "is there twice")
		default:
			seen[key.Value] = true
			d.decode(v.FieldByIndex(index), value, inner, from)
		}
	}
}

func (d *decoder) list(v reflect.Value, n *yaml.Node, path string, from origin) {
	if n.Kind != yaml.SequenceNode {
		d.mistake(from(n), path, fmt.Sprintf("is %s, not a list", describe(n)))
		return
	}
	// The list before is gone, and so is what was known of its items.
	maps.DeleteFunc(d.origins, func(key, _ string) bool { return strings.HasPrefix(key, path+"[") })
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.decode(out.Index(i), item, fmt.Sprintf("%s[%d]", path, i), from)
	}
	v.Set(out)
	d.origins[path] = from(n)
}

func (d *decoder) table(v reflect.Value, n *yaml.Node, path string, from origin) {
	if n.Kind != yaml.MappingNode || v.Type().Key().Kind() != reflect.String {
		d.mistake(from(n), path, fmt.Sprintf("is %s, not a table of keys", describe(n)))
		return
	}
	out := reflect.MakeMap(v.Type())
	for _, key := range v.MapKeys() {
		out.SetMapIndex(key, v.MapIndex(key))
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := reflect.ValueOf(n.Content[i].Value).Convert(v.Type().Key())
		item := reflect.New(v.Type().Elem()).Elem()
		if old := out.MapIndex(key); old.IsValid() {
			item.Set(old)
		}
		d.decode(item, n.Content[i+1], join(path, n.Content[i].Value), from)
		out.SetMapIndex(key, item)
	}
	v.Set(out)
}

func (d *decoder) scalar(v reflect.Value, n *yaml.Node, path string, from origin) {
	if n.Kind != yaml.ScalarNode {
		d.mistake(from(n), path, fmt.Sprintf("is %s, not one value", describe(n)))
		return
	}
	if err := setScalar(v, n.Value, n.ShortTag()); err != nil {
		d.mistake(from(n), path, err.Error())
		return
	}
	d.origins[path] = from(n)
}

// setScalar reads text as the type of v. tag keeps YAML's own reading from being
// overruled where that would surprise: a number is no switch.
func setScalar(v reflect.Value, text, tag string) error {
	if v.Type() == durationType {
		value, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as 30s or 1h30m", text)
		}
		v.SetInt(int64(value))
		return nil
	}
	if v.CanAddr() {
		if u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
			if err := u.UnmarshalText([]byte(text)); err != nil {
				return fmt.Errorf("%q: %w", text, err)
			}
			return nil
		}
	}
	switch v.Kind() {
	case reflect.String:
		if tag == "!!bool" || tag == "!!int" || tag == "!!float" || tag == "!!str" || tag == "!!timestamp" || tag == "" {
			v.SetString(text)
			return nil
		}
		return fmt.Errorf("%q is not text", text)
	case reflect.Bool:
		switch text {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		default:
			return fmt.Errorf("%q is neither true nor false", text)
		}
		return nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		value, err := strconv.ParseInt(text, 0, 64)
		if err != nil || v.OverflowInt(value) {
			return fmt.Errorf("%q is not a whole number of %d bits", text, v.Type().Bits())
		}
		v.SetInt(value)
		return nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		value, err := strconv.ParseUint(text, 0, 64)
		if err != nil || v.OverflowUint(value) {
			return fmt.Errorf("%q is not a whole number from 0 of %d bits", text, v.Type().Bits())
		}
		v.SetUint(value)
		return nil
	case reflect.Float32, reflect.Float64:
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
			return fmt.Errorf("%q is not a number", text)
		}
		v.SetFloat(value)
		return nil
	}
	return fmt.Errorf("a %v cannot be configured", v.Type())
}

// fieldsOf maps the keys of a struct to its fields.
func fieldsOf(t reflect.Type) map[string][]int {
	fields := map[string][]int{}
	for _, f := range reflect.VisibleFields(t) {
		if len(f.Index) > 1 || !f.IsExported() {
			continue
		}
		if key := keyOf(f); key != "-" {
			fields[key] = f.Index
		}
	}
	return fields
}

func keyOf(f reflect.StructField) string {
	for _, tag := range []string{"koanf", "yaml"} {
		if name, _, _ := strings.Cut(f.Tag.Get(tag), ","); name != "" {
			return name
		}
	}
	return snake(f.Name)
}

// snake writes a Go name in snake case: MaxAge is max_age, HTTPPort http_port.
func snake(name string) string {
	runes := []rune(name)
	var b strings.Builder
	for i, r := range runes {
		if unicode.IsUpper(r) && i > 0 &&
			(!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a table of keys"
	case yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(n.Value)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// nearest returns the known key that takes the fewest edits from key, if a
// reader would take it for a slip of the finger.
func nearest(key string, fields map[string][]int) string {
	best, found := 3, ""
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if d := distance(key, name); d < best && d < len(name) {
			best, found = d, name
		}
	}
	return found
}

// distance is Levenshtein's, in bytes, with the swap of two neighbours as one.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}

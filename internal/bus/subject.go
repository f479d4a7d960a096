package bus

import (
	"errors"
	"fmt"
	"strings"
)

// SubjectToken makes one token of a subject from any name: letters, digits, "_"
// and "-" stand for themselves, every other byte is %XX. Different names give
// different tokens; the empty name is "%".
func SubjectToken(name string) string {
	if name == "" {
		return "%"
	}
	escapes := 0
	for i := range len(name) {
		if !plain(name[i]) {
			escapes++
		}
	}
	if escapes == 0 {
		return name
	}
	var b strings.Builder
	b.Grow(len(name) + 2*escapes)
	for i := range len(name) {
		if c := name[i]; plain(c) {
			b.WriteByte(c)
		} else {
			const hex = "0123456789ABCDEF"
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// ParseSubjectToken returns the name that [SubjectToken] made token from, and
// refuses any other spelling of it: a name has one subject.
func ParseSubjectToken(token string) (string, error) {
	if token == "%" {
		return "", nil
	}
	if token == "" {
		return "", errors.New("subject token is empty")
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		c := token[i]
		if c == '%' && i+2 < len(token) {
			hi, lo := unhex(token[i+1]), unhex(token[i+2])
			if hi < 0 || lo < 0 || plain(byte(hi<<4|lo)) {
				return "", fmt.Errorf("subject token %q: bad escape at byte %d", token, i)
			}
			c = byte(hi<<4 | lo)
			i += 2
		} else if !plain(c) {
			return "", fmt.Errorf("subject token %q: %q at byte %d must be escaped", token, c, i)
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

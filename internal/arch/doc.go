// Package arch holds the rules that the compiler does not: which folder may
// import which, where generated types stop, what every service folder looks
// like, and that the documents speak of tests, files and metrics that exist.
//
// It has no code of its own, only tests. Each rule is a row of a table with the
// reason beside it; a failure prints the reason and the chain of imports that
// breaks it. .golangci.yml repeats the rules on direct imports, so that an
// editor shows them; this package also looks through indirect ones.
package arch

// Package e2e runs real traces through the real program, from CSV file to
// statement, and compares with the oracle: energy by ==, grams to 1e-12.
package e2e

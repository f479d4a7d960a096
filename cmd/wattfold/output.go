package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// table is rows under a head, for people and for CSV.
type table struct {
	head []string
	rows [][]string
	// foot is printed behind a table for people.
	foot []string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the message as JSON, or the table as text or CSV, as --output
// says.
func (a *app) print(msg proto.Message, t *table) error {
	switch a.output {
	case "json":
		return printJSON(a.out, msg)
	case "csv":
		w := csv.NewWriter(a.out)
		if err := w.Write(t.head); err != nil {
			return err
		}
		return w.WriteAll(t.rows)
	}
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(t.head, "\t"))
	for _, row := range t.rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, line := range t.foot {
		if _, err := fmt.Fprintln(a.out, line); err != nil {
			return err
		}
	}
	return nil
}

// printJSON writes the API's message. protojson varies its white space on
// purpose, so it is laid out anew.
func printJSON(w io.Writer, msg proto.Message) error {
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(msg)
	if err != nil {
		return err
	}
	var compact json.RawMessage = raw
	out, err := json.MarshalIndent(compact, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", out)
	return err
}

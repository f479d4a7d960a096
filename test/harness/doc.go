// Package harness runs the real wattfold binary for tests: it builds it once a
// test package, starts `wattfold up` or single roles on free loopback ports,
// waits for their health, runs the command line against them and stops, or
// kills, what it started.
//
// A test package calls [Main] from its TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
//
// and then
//
//	up := harness.Up(t, t.TempDir())
//	up.Must("sites", "create", "paris", "--zone", "FR", "--pue", "1.1")
//	s := up.Statement("--site", "paris")
//
// What a process printed is shown when its test fails.
package harness

// Package storetest holds the contract of [ledger.Store] as a suite that every
// implementation passes, the fake included, and [Faulty], which breaks a store on
// purpose.
package storetest

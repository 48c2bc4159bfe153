#include "server/http/connection_table.h"

#include "kernels/base/check.h"

namespace serval {

bool ConnectionTable::has_room(const std::string& address) const {
  const size_t open =
      lists_[static_cast<size_t>(Place::kIdle)].size() + lists_[static_cast<size_t>(Place::kBusy)].size();
  if (open >= static_cast<size_t>(limits_.most)) return false;
  if (limits_.max_per_address == 0) return true;
  const auto found = per_address_.find(address);
  return found == per_address_.end() || found->second < limits_.max_per_address;
}

ConnectionTable::Id ConnectionTable::longest_idle(const std::string& address) const {
  const auto found = per_address_.find(address);
  const bool of_its_own = limits_.max_per_address > 0 && found != per_address_.end() &&
                          found->second >= limits_.max_per_address;
  for (const Id id : lists_[static_cast<size_t>(Place::kIdle)]) {
    if (!of_its_own || entries_.at(id).address == address) return id;
  }
  return nullptr;
}

// All that allocates comes first, so that a failure leaves nothing half done.
ConnectionTable::Leaver ConnectionTable::add(Id id, std::string address) {
  std::list<Id> node{id};
  int& count = per_address_.try_emplace(address, 0).first->second;
  Entry& entry = entries_.try_emplace(id).first->second;
  entry.address = std::move(address);
  entry.position = node.begin();
  Leaver leaver;
  if (!has_room(entry.address)) {
    leaver.id = longest_idle(entry.address);
    if (leaver.id) move(entries_.at(leaver.id), Place::kLeaving);
  }
  entry.place = has_room(entry.address) ? Place::kIdle : Place::kReserve;
  std::list<Id>& list = list_of(entry.place);
  list.splice(list.end(), node);
  if (entry.place == Place::kIdle) {
    ++count;
  } else if (list.size() > static_cast<size_t>(limits_.reserve)) {
    leaver = {list.front(), /*at_once=*/true};
    move(entries_.at(leaver.id), Place::kLeaving);
  }
  return leaver;
}

bool ConnectionTable::claim_rights(Id id) {
  Entry& entry = entries_.at(id);
  if (entry.place != Place::kReserve) return true;
  if (!has_room(entry.address)) return false;
  move(entry, Place::kBusy);
  return true;
}

void ConnectionTable::set_idle(Id id, bool idle) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  // One that was told to leave and found something to do first leaves all the same, once it is done.
  if (entry.place == (idle ? Place::kBusy : Place::kIdle)) move(entry, idle ? Place::kIdle : Place::kBusy);
}

void ConnectionTable::remove(Id id) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  move(found->second, Place::kLeaving);
  const auto address = per_address_.find(found->second.address);
  if (address != per_address_.end() && address->second == 0) per_address_.erase(address);
  list_of(Place::kLeaving).erase(found->second.position);
  entries_.erase(found);
}

ConnectionTable::Leaver ConnectionTable::take_longest_idle() {
  const std::list<Id>& idle = list_of(Place::kIdle);
  if (idle.empty()) return {};
  const Leaver leaver{idle.front()};
  move(entries_.at(leaver.id), Place::kLeaving);
  return leaver;
}

void ConnectionTable::move(Entry& entry, Place place) {
  const auto counts = [](Place p) { return p == Place::kIdle || p == Place::kBusy; };
  if (counts(entry.place) != counts(place)) {
    int& count = per_address_[entry.address];
    count += counts(place) ? 1 : -1;
    SERVAL_DCHECK(count >= 0, count);
  }
  std::list<Id>& to = list_of(place);
  to.splice(to.end(), list_of(entry.place), entry.position);
  entry.place = place;
}

}  // namespace serval
